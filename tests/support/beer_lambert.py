"""Sections made of two dyes by Beer-Lambert, with everything known: the oracle of the stain tests.

Written without functions of the package, as an independent reference.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# HE: medians of the stains fitted to real HE patches of the kidney.
HE = ((0.57, 0.76, 0.29), (0.13, 0.91, 0.36))
PAS = ((0.63, 0.70, 0.34), (0.33, 0.90, 0.29))
TARGET_HE = ((0.54, 0.76, 0.36), (0.10, 0.95, 0.28))


@dataclass(frozen=True)
class Truth:
    """Pixels and what they are made of."""

    image: np.ndarray  # (n, n, 3) uint8
    stain_matrix: np.ndarray  # (3, 2)
    amounts: np.ndarray  # (n, n, 2)
    white: np.ndarray  # (3,)

    def recomposed(self, dyes, *, gains=(1.0, 1.0), white=(255.0, 255.0, 255.0)) -> np.ndarray:
        """The same tissue under other dyes, amounts and light, without noise; float (n, n, 3)."""
        vectors = unit_rows(dyes)
        return np.asarray(white) * np.exp(-(self.amounts * np.asarray(gains)) @ vectors)


def unit_rows(vectors) -> np.ndarray:
    rows = np.array(vectors, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def section(
    seed: int = 0,
    *,
    size: int = 256,
    dyes=HE,
    white=(241.0, 238.0, 242.0),
    nuclei: float = 0.15,
    glass: float = 0.2,
    strength=(1.0, 1.0),
    noise: float = 1.5,
    border: float = 0.0,
) -> Truth:
    """Nuclei, stroma and glass; some nuclei hold no second dye, some stroma no first.

    Without such pure pixels no method that looks at colours alone can find the dyes.
    """
    rng = np.random.default_rng(seed)

    def field(sigma: float) -> np.ndarray:
        values = gaussian_filter(rng.normal(size=(size, size)), sigma)
        return (values - values.mean()) / values.std()

    places, ground = field(3.0), field(12.0)
    nucleus = places > np.quantile(places, 1.0 - nuclei)
    bare = (ground < np.quantile(ground, glass)) & ~nucleus
    first = np.where(nucleus, 1.2 * np.exp(0.25 * field(1.2)), 0.08 * np.abs(field(4.0)))
    second = np.where(nucleus, 0.15, 0.45) * np.exp(0.35 * field(8.0) + 0.15 * field(1.5))
    first[~nucleus & (field(6.0) > 0.0)] = 0.0
    second[nucleus & (field(6.0) > 0.0)] = 0.0
    amounts = np.stack([first, second], axis=-1) * np.asarray(strength)
    amounts[bare] = 0.0
    light = np.asarray(white) * np.exp(-amounts @ unit_rows(dyes))
    light += rng.normal(0.0, noise, light.shape)
    image = np.rint(light.clip(0.0, 255.0)).astype(np.uint8)
    n_border = round(border * size)
    image[:, :n_border] = rng.integers(0, 4, (size, n_border, 3))
    return Truth(image, unit_rows(dyes).T, amounts, np.asarray(white))


def worst_angle(found: np.ndarray, true: np.ndarray) -> float:
    """Larger of the two angles between the columns of two stain matrices, degrees."""
    cosines = np.clip(np.sum(found * true, axis=0), -1.0, 1.0)
    return float(np.degrees(np.arccos(cosines)).max())
