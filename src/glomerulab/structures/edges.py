"""Where a slide holds no tissue, so that objects cut by the tissue's edge are known."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from glomerulab.geometry import Box
from glomerulab.runtime.jit import Flags
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import FloatArray, estimate_white, tissue_mask
from glomerulab.structures.maps import MapFrame

__all__ = ["Outside", "find_outside"]

EDGE_MPP = 10.0
"""Micrometres per pixel at which tissue is told from glass."""
MIN_GLASS_UM2 = 50_000.0
"""Smaller glass is a lumen or a tear within the tissue."""
CUT_SHARE = 0.1
"""Share of an object's border along the tissue's edge from which it is cut."""


@dataclass(frozen=True, eq=False, slots=True)
class Outside:
    """Glass around the tissue, and the `EDGE_MPP` next to it."""

    glass: Flags
    factor: tuple[float, float]
    """Pixels of this mask per pixel of the map, x and y."""
    white: FloatArray
    """Grey level of unstained glass, shape (3,)."""

    def cuts(self, mask: Flags, left: int, top: int) -> bool:
        """Whether a tenth of the border of an object of the map lies at the glass."""
        rows, columns = np.nonzero(mask & ~ndimage.binary_erosion(mask))
        y = ((rows + top + 0.5) * self.factor[1]).astype(np.int64)
        x = ((columns + left + 0.5) * self.factor[0]).astype(np.int64)
        height, width = self.glass.shape
        at_glass = self.glass[np.minimum(y, height - 1), np.minimum(x, width - 1)]
        return bool(at_glass.mean() >= CUT_SHARE)


def find_outside(slide: Slide, frame: MapFrame) -> Outside:
    """Find the glass around the tissue of a slide, for objects of a map of it.

    Raises
    ------
    MissingMppError, SlideError
        As for `Slide.read_region`.
    """
    mpp = max(EDGE_MPP, slide.mpp)
    image = slide.read_region(Box(0, 0, *slide.dimensions), mpp=mpp)
    white = estimate_white(image)
    glass = ~tissue_mask(image, white)
    labels, n = ndimage.label(glass)
    is_large = np.bincount(labels.ravel(), minlength=n + 1) * mpp**2 >= MIN_GLASS_UM2
    is_large[0] = False
    edge = ndimage.binary_dilation(is_large[labels])
    height, width = edge.shape
    return Outside(edge, (width / frame.width, height / frame.height), white)
