"""How sharp a crop is, as one number that can be compared with the training crops'."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import laplace

from glomerulab.images import RgbImage

__all__ = ["sharpness"]

SMALLEST_VARIANCE = 1.0


def sharpness(image: RgbImage) -> float:
    """Measure how much of an image's contrast is in its finest detail.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        At the micrometres per pixel of the model: the measure depends on them.

    Returns
    -------
    float
        Logarithm (base 10) of the variance of the Laplacian over the variance of the grey levels.

    Notes
    -----
    The variance of the Laplacian [1]_ grows with the contrast of the staining; divided by the
    variance it does not. Ours, not the paper's: the division, and the logarithm.

    References
    ----------
    .. [1] Pech-Pacheco et al., ICPR 2000.
    """
    # The mean of the channels, ten times faster than along the last axis; the sum is exact.
    red, green, blue = (image[..., channel].astype(np.float64) for channel in range(3))
    grey: npt.NDArray[np.float64] = (red + green + blue) / 3
    variance = max(float(grey.var()), SMALLEST_VARIANCE)
    return float(np.log10(max(float(laplace(grey).var()), 1e-6) / variance))
