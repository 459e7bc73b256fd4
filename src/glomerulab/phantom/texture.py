"""Smooth noise that repeats after 256 cells: the grain of cytoplasm and the wobble of outlines.

One fixed bank of noise serves every image; scenes differ by where in it they lie.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glomerulab.runtime.jit import compiled

__all__ = ["FloatArray", "noise_at", "noise_bank"]

FloatArray = npt.NDArray[np.float32]

CELLS = 256
BANK_SEED = 20220910


@cache
def noise_bank() -> FloatArray:
    """Return the noise, float32, shape (256, 256), mean 0, standard deviation 1, periodic."""
    white = np.random.default_rng(BANK_SEED).standard_normal((CELLS, CELLS))
    smooth = ndimage.gaussian_filter(white, 0.7, mode="wrap")
    bank: FloatArray = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    bank.setflags(write=False)
    return bank


@compiled
def noise_at(bank: FloatArray, x: float, y: float) -> float:
    """Interpolate the noise at a place given in cells."""
    column, row = math.floor(x), math.floor(y)
    right, lower = x - column, y - row
    left_cell, upper_cell = int(column) & 255, int(row) & 255
    right_cell, lower_cell = (left_cell + 1) & 255, (upper_cell + 1) & 255
    above = bank[upper_cell, left_cell] * (1 - right) + bank[upper_cell, right_cell] * right
    below = bank[lower_cell, left_cell] * (1 - right) + bank[lower_cell, right_cell] * right
    return float(above * (1 - lower) + below * lower)
