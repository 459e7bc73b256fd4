"""Structure maps drawn in memory."""

import numpy as np
from scipy import ndimage

from glomerulab.structures.maps import MapFrame, StructureMap


def make_map(
    likely: dict[str, np.ndarray],
    *,
    core: dict[str, np.ndarray] | None = None,
    certain: dict[str, np.ndarray] | None = None,
    possible: dict[str, np.ndarray] | None = None,
    mpp: float = 1.0,
    scale: float = 2.0,
) -> StructureMap:
    height, width = next(iter(likely.values())).shape
    size = (round(width * scale), round(height * scale))
    frame = MapFrame(tuple(likely), width, height, (mpp, mpp), (scale, scale), size)
    if core is None:
        core = {name: ndimage.binary_erosion(mask, iterations=3) for name, mask in likely.items()}

    def bits(masks: dict[str, np.ndarray]) -> np.ndarray:
        found = np.zeros((height, width), np.uint16)
        for name, mask in masks.items():
            found[mask] |= frame.bit(name)
        return found

    some, sure = bits(likely), bits(likely if certain is None else certain)
    return StructureMap(frame, bits(possible or likely) | some, some, sure, bits(core))


def draw_disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius
