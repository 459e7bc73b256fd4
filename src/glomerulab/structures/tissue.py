"""Where a slide holds tissue and where glass, at low resolution, and what is told from glass.

All limits between tissue, glass and lumen that outlines depend on are here; how light a pixel of
glass is, is `glomerulab.stain.optical_density.GLASS_LIGHTNESS` unless a limit here says otherwise.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glomerulab.geometry import Box
from glomerulab.runtime.jit import Flags
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import FloatArray, estimate_white, tissue_mask
from glomerulab.structures.maps import MapFrame

__all__ = ["MIN_LUMEN_UM2", "Outside", "Tissue", "find_outside", "find_tissue"]

TISSUE_MPP = 16.0
"""Micrometres per pixel at which tissue is looked for on a whole slide."""
TISSUE_LIGHTNESS = 0.93
"""Relative to the glass, from which a pixel of `TISSUE_MPP` is glass: tissue is paler there."""
MIN_TISSUE_UM2 = 2500.0
"""A smaller piece is dust."""
MAX_HOLE_UM2 = 1e6
"""A larger hole in the tissue is glass, a smaller one a lumen or a tear within it."""
AROUND_TISSUE_UM = 48.0
"""Structures reach so far beyond the tissue that is seen at low resolution."""
EDGE_MPP = 10.0
"""Micrometres per pixel at which the edge of the tissue is found."""
MIN_GLASS_UM2 = 50_000.0
"""Smaller glass is a lumen or a tear within the tissue."""
CUT_SHARE = 0.1
"""Share of an object's border along the tissue's edge from which it is cut."""
MIN_LUMEN_UM2 = 20.0
"""Smaller light areas within a tubule or an artery are no lumen."""


@dataclass(frozen=True, eq=False, slots=True)
class Tissue:
    """Where a slide has tissue."""

    mask: Flags
    """Without any hole."""
    inside: Flags
    """With holes of less than `MAX_HOLE_UM2`."""
    outside: Flags
    """More than a pixel away from `inside`."""
    near: Flags
    """With all holes and `AROUND_TISSUE_UM` around it."""
    area_um2: float
    """With all holes."""

    def of(self, layer: Flags, frame: MapFrame, columns: range, rows: range) -> Flags:
        """Return a layer at pixels of a map of the slide, shape (rows, columns)."""
        down = _cells(rows, frame.height, layer.shape[0])
        across = _cells(columns, frame.width, layer.shape[1])
        found: Flags = layer[down][:, across]
        return found


def _cells(pixels: range, length: int, n: int) -> npt.NDArray[np.intp]:
    """Return the cells of a mask under pixels of a map."""
    middles = np.arange(pixels.start, pixels.stop) + 0.5
    return (middles * (n / length)).astype(np.intp)


def find_tissue(slide: Slide, *, least_mpp: float = 0.0) -> Tissue:
    """Find the tissue of a slide at `TISSUE_MPP`, or at `least_mpp` if that is coarser.

    Raises
    ------
    MissingMppError, SlideError
        As for `Slide.read_region`.
    """
    mpp = max(TISSUE_MPP, least_mpp)
    pixels = slide.read_region(Box(0, 0, *slide.dimensions), mpp=mpp)
    white = np.array(slide.background, dtype=np.float64)
    mask = tissue_mask(pixels, white, glass_lightness=TISSUE_LIGHTNESS)
    filled = _large(ndimage.binary_fill_holes(mask), MIN_TISSUE_UM2 / mpp**2)
    reach = round(AROUND_TISSUE_UM / mpp)
    near = ndimage.binary_dilation(filled, iterations=reach) if reach else filled
    inside = filled & ~_large(filled & ~mask, MAX_HOLE_UM2 / mpp**2)
    outside = ~ndimage.binary_dilation(inside)
    return Tissue(mask & filled, inside, outside, near, float(filled.sum()) * mpp**2)


def _large(mask: Flags, least_px: float) -> Flags:
    """Return the connected parts of a mask of at least so many pixels."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    is_large = np.bincount(labels.ravel()) >= least_px
    is_large[0] = False
    found: Flags = is_large[labels]
    return found


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
    labels, n = ndimage.label(~tissue_mask(image, white))
    is_large = np.bincount(labels.ravel(), minlength=n + 1) * mpp**2 >= MIN_GLASS_UM2
    is_large[0] = False
    edge = ndimage.binary_dilation(is_large[labels])
    height, width = edge.shape
    return Outside(edge, (width / frame.width, height / frame.height), white)
