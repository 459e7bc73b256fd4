"""Measures of saliency maps: against lesion masks, by perturbation, and with randomised weights."""

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from glomerulab.explain.attribution import mean_colour
from glomerulab.models.card import ModelCard
from glomerulab.models.heads import probabilities
from glomerulab.models.registry import create_model
from glomerulab.predictions import Head

SaliencyMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Curve = npt.NDArray[np.float64]

SPOTS_ACROSS = 8
N_STEPS = 16
BLUR_SHARE = 0.06
"""Standard deviation of the blur that insertion starts from, as a share of the width."""
RANDOM_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the layers below the classifier that are random at each step; at 0 only it is."""


def points_inside(saliency: SaliencyMap, mask: Mask) -> bool:
    """Return whether the most salient pixel lies in the lesion (pointing game).

    Parameters
    ----------
    saliency : ndarray of float, shape (H, W)
        At least 0; a map of zeros points nowhere and gives False.
    mask : ndarray of bool, shape (H, W)

    Raises
    ------
    ValueError
        If the shapes differ or the mask is empty.

    Notes
    -----
    Zhang et al. 2018, without their tolerance of 15 pixels. A random point hits with a probability
    equal to the mask's share of the image.
    """
    _check(saliency, mask)
    if not saliency.any():
        return False
    return bool(mask.flat[int(np.argmax(saliency))])


def energy_inside(saliency: SaliencyMap, mask: Mask) -> float:
    """Return the share of all saliency in the lesion (energy-based pointing game).

    Parameters
    ----------
    saliency : ndarray of float, shape (H, W)
        At least 0.
    mask : ndarray of bool, shape (H, W)

    Returns
    -------
    float
        From 0 to 1; an even map gives the mask's share of the image. NaN for a map of zeros.

    Raises
    ------
    ValueError
        If the shapes differ or the mask is empty.

    Notes
    -----
    Wang et al. 2020.
    """
    _check(saliency, mask)
    total = float(saliency.sum(dtype=np.float64))
    return float(saliency[mask].sum(dtype=np.float64)) / total if total > 0 else float("nan")


def random_control(shape: tuple[int, int], rng: np.random.Generator) -> SaliencyMap:
    """Draw a map of soft random spots, from 0 to 1, as coarse as the maps of the methods."""
    rows, columns = (np.linspace(0, SPOTS_ACROSS - 1, n) for n in shape)
    grid = np.arange(SPOTS_ACROSS)
    spots = rng.random((SPOTS_ACROSS, SPOTS_ACROSS))
    # Bilinear: first along the rows of the grid, then along its columns.
    along = np.stack([np.interp(rows, grid, column) for column in spots.T], axis=1)
    return np.stack([np.interp(columns, grid, row) for row in along]).astype(np.float32)


def centre_control(shape: tuple[int, int]) -> SaliencyMap:
    """Return a map that falls from 1 in the middle.

    Crops are centred on a glomerulus, so this control is hard to beat without the image.
    """
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.exp(-2.0 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)


def deletion_curve(
    model: nn.Module, image: Tensor, saliency: Tensor, target: int, *, head: Head = "softmax"
) -> Curve:
    """Replace pixels by the mean colour, the most salient first, and record the probability.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    image : Tensor of float, shape (3, H, W)
        Normalised, on the device of the model.
    saliency : Tensor of float, shape (H, W)
    target : int
        Index of the label.
    head : {"softmax", "sigmoid"}, default "softmax"

    Returns
    -------
    ndarray of float64, shape (N_STEPS + 1,)
        Probability of the label with 0, 1/N_STEPS, …, 1 of the pixels replaced. The lower its
        `area`, the better the map.

    Notes
    -----
    Petsiuk et al. 2018. Pixels of equal saliency go in the order of the image, so a map of zeros is
    a sweep from the top.
    """
    blank = mean_colour(image).expand_as(image)
    return _curve(model, (image, blank), _ranks(saliency), target, head)


def insertion_curve(
    model: nn.Module, image: Tensor, saliency: Tensor, target: int, *, head: Head = "softmax"
) -> Curve:
    """Restore pixels of a blurred image, the most salient first, and record the probability.

    Parameters and result as for `deletion_curve`; the higher its `area`, the better the map.
    """
    sigma = max(0.5, BLUR_SHARE * image.shape[-1])
    size = 2 * int(2 * sigma) + 1
    blurred = transforms.gaussian_blur(image, [size, size], [sigma, sigma])
    return _curve(model, (blurred, image), _ranks(saliency), target, head)


def area(curve: Curve) -> float:
    """Return the area under a curve over shares from 0 to 1, by trapezoids."""
    return float(np.trapezoid(curve, dx=1.0 / (len(curve) - 1)))


def randomised_models(
    model: nn.Module, card: ModelCard, *, seed: int
) -> Iterator[tuple[float, nn.Module]]:
    """Yield copies of a trained model with random weights in its upper layers.

    Notes
    -----
    The cascading sanity check of Adebayo et al. 2018: from the classifier down, weights are
    replaced by random ones. A method whose maps hardly change draws edges of the image and does
    not explain the model.
    """
    fresh = create_model(
        card.model,
        len(card.labels),
        seed=seed,
        options=card.options,
        input_size=card.input_size,
    )
    layers = [name for name, layer in model.named_modules() if _has_own_weights(layer)]
    for share in RANDOM_SHARES:
        randomised = copy.deepcopy(model)
        n_layers = 1 + round(share * (len(layers) - 1))
        for name in layers[-n_layers:]:
            randomised.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
        yield share, randomised.eval()


def rank_correlation(first: SaliencyMap, second: SaliencyMap) -> float:
    """Return Spearman's correlation of two maps over their pixels; NaN if one is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def _check(saliency: SaliencyMap, mask: Mask) -> None:
    if saliency.shape != mask.shape:
        raise ValueError(f"saliency has shape {saliency.shape}, the mask {mask.shape}")
    if not mask.any():
        raise ValueError("the mask is empty: there is no lesion to find")


def _ranks(saliency: Tensor) -> Tensor:
    """Return the rank of each pixel in falling order of saliency, shape (H, W)."""
    order = torch.argsort(saliency.flatten(), descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.reshape(saliency.shape)


def _curve(
    model: nn.Module, ends: tuple[Tensor, Tensor], ranks: Tensor, target: int, head: Head
) -> Curve:
    """Change the first image of `ends` into the second pixel by pixel, the lowest rank first."""
    start, end = ends
    limits = torch.linspace(0, ranks.numel(), N_STEPS + 1).round()
    changed = ranks[None] < limits[:, None, None]  # (N_STEPS + 1, H, W)
    steps = torch.where(changed[:, None].to(start.device), end[None], start[None])
    with torch.inference_mode():
        values = probabilities(model(steps).float().cpu(), head)
    curve: Curve = values[:, target].numpy()
    return curve


def _has_own_weights(layer: nn.Module) -> bool:
    return next(layer.children(), None) is None and any(True for _ in layer.parameters())
