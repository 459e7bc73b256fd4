"""Deletion and insertion: does the answer go, and come, with the pixels that a map says matter."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from glomerulab.explain.attribution import mean_colour
from glomerulab.models.heads import probabilities
from glomerulab.predictions import Head

__all__ = ["area", "deletion_curve", "insertion_curve"]

FloatArray = npt.NDArray[np.float64]

N_STEPS = 16
BLUR_SHARE = 0.06
"""Standard deviation of the blur that insertion starts from, as a share of the width."""


def deletion_curve(
    model: nn.Module, image: Tensor, saliency: Tensor, target: int, *, head: Head = "softmax"
) -> FloatArray:
    """Replace the most salient pixels first by the mean colour and watch the probability.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    image : Tensor of float, shape (3, H, W)
        Normalised, on the device of the model.
    saliency : Tensor of float, shape (H, W)
    target : int
        Place of the label.
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
) -> FloatArray:
    """Bring the most salient pixels first back into a blurred image and watch the probability.

    Parameters
    ----------
    model, image, saliency, target, head
        As for `deletion_curve`.

    Returns
    -------
    ndarray of float64, shape (N_STEPS + 1,)
        With 0, 1/N_STEPS, …, 1 of the pixels sharp. The higher its `area`, the better the map.
    """
    sigma = max(0.5, BLUR_SHARE * image.shape[-1])
    size = 2 * int(2 * sigma) + 1
    blurred = transforms.gaussian_blur(image, [size, size], [sigma, sigma])
    return _curve(model, (blurred, image), _ranks(saliency), target, head)


def area(curve: FloatArray) -> float:
    """Return the area under a curve over shares from 0 to 1, by trapezoids."""
    return float(np.trapezoid(curve, dx=1.0 / (len(curve) - 1)))


def _ranks(saliency: Tensor) -> Tensor:
    """Give each pixel its place in falling order of saliency, shape (H, W)."""
    order = torch.argsort(saliency.flatten(), descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.reshape(saliency.shape)


def _curve(
    model: nn.Module, ends: tuple[Tensor, Tensor], ranks: Tensor, target: int, head: Head
) -> FloatArray:
    """Go from the first of `ends` to the second pixel by pixel, the lowest rank first."""
    start, end = ends
    limits = torch.linspace(0, ranks.numel(), N_STEPS + 1).round()
    changed = ranks[None] < limits[:, None, None]  # (N_STEPS + 1, H, W)
    steps = torch.where(changed[:, None].to(start.device), end[None], start[None])
    with torch.inference_mode():
        said = probabilities(model(steps).float().cpu(), head)
    found: FloatArray = said[:, target].numpy()
    return found
