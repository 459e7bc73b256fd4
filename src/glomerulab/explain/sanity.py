"""The sanity check of randomised weights: a map that stays when the model forgets is not of it.

Adebayo et al. 2018, cascading: weights are replaced by random ones from the classifier down, and at
each step the map is compared with that of the trained model. A method whose maps hardly change
draws edges of the image, not reasons of the model.
"""

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from torch import nn

from glomerulab.models.checkpoint import ModelCard
from glomerulab.models.registry import create_model

__all__ = ["SHARES", "randomised", "rank_correlation"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the layers below the classifier that are random at each step; at 0 only it is."""


def randomised(
    model: nn.Module, card: ModelCard, *, seed: int
) -> Iterator[tuple[float, nn.Module]]:
    """Give copies of a model whose upper layers have forgotten what they learned.

    Parameters
    ----------
    model : Module
        Trained.
    card : ModelCard
        What it was built from.
    seed : int
        Of the random weights.

    Yields
    ------
    share : float
        One of `SHARES`.
    model : Module
        A copy, in evaluation mode, on the device of `model`.
    """
    fresh = create_model(card.model, len(card.labels), seed=seed, options=card.options)
    layers = [name for name, layer in model.named_modules() if _has_own_weights(layer)]
    for share in SHARES:
        forgotten = copy.deepcopy(model)
        n_layers = 1 + round(share * (len(layers) - 1))
        for name in layers[-n_layers:]:
            forgotten.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
        yield share, forgotten.eval()


def rank_correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Return Spearman's correlation of two maps over their pixels.

    Parameters
    ----------
    first, second : ndarray of float, shape (H, W)

    Returns
    -------
    float
        From -1 to 1; NaN where a map is the same everywhere, as one of zeros is.
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def _has_own_weights(layer: nn.Module) -> bool:
    return next(layer.children(), None) is None and any(True for _ in layer.parameters())
