"""How well a saliency map finds a lesion whose place is known."""

import numpy as np
import numpy.typing as npt

__all__ = ["centre_control", "energy_inside", "points_inside", "random_control"]

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPOTS_ACROSS = 8


def points_inside(saliency: FloatArray, mask: Mask) -> bool:
    """Play the pointing game: whether the most salient pixel lies in the lesion.

    Parameters
    ----------
    saliency : ndarray of float, shape (H, W)
        At least 0.
    mask : ndarray of bool, shape (H, W)

    Returns
    -------
    bool
        False for a map that is 0 everywhere: it points nowhere.

    Raises
    ------
    ValueError
        If the shapes differ or the mask is empty.

    Notes
    -----
    Zhang et al. 2018, without their tolerance of 15 pixels. A point put at random hits with a
    chance that is the mask's share of the image.
    """
    _check(saliency, mask)
    if not saliency.any():
        return False
    return bool(mask.flat[int(np.argmax(saliency))])


def energy_inside(saliency: FloatArray, mask: Mask) -> float:
    """Return the share of all saliency that lies in the lesion.

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
    The energy-based pointing game of Wang et al. 2020.
    """
    _check(saliency, mask)
    total = float(saliency.sum(dtype=np.float64))
    return float(saliency[mask].sum(dtype=np.float64)) / total if total > 0 else float("nan")


def random_control(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Draw a map of soft random spots: what a method must beat that knows nothing.

    Parameters
    ----------
    shape : tuple of int
        Height and width.
    rng : Generator

    Returns
    -------
    ndarray of float32, shape (H, W)
        From 0 to 1, as coarse as the maps of the methods.
    """
    rows, columns = (np.linspace(0, SPOTS_ACROSS - 1, n) for n in shape)
    spots = rng.random((SPOTS_ACROSS, SPOTS_ACROSS))
    return _between(spots, rows, columns).astype(np.float32)


def centre_control(shape: tuple[int, int]) -> FloatArray:
    """Return a map that falls from the middle: what one beats only by looking at the image.

    Parameters
    ----------
    shape : tuple of int
        Height and width.

    Returns
    -------
    ndarray of float32, shape (H, W)
        1 in the middle. Crops are centred on a glomerulus, so this is no weak opponent.
    """
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.exp(-2.0 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)


def _between(
    spots: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    columns: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Interpolate a grid bilinearly: first along its rows, then along its columns."""
    places = np.arange(len(spots))
    along = np.stack([np.interp(rows, places, column) for column in spots.T], axis=1)
    return np.stack([np.interp(columns, places, row) for row in along])


def _check(saliency: FloatArray, mask: Mask) -> None:
    if saliency.shape != mask.shape:
        raise ValueError(f"saliency has shape {saliency.shape}, the mask {mask.shape}")
    if not mask.any():
        raise ValueError("the mask is empty: there is no lesion to find")
