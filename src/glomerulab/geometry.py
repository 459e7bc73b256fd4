"""Points, boxes and regions of a slide in level-0 pixels, x to the right and y down."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Box", "Point", "Region"]

Point = tuple[float, float]
"""(x, y) in level-0 pixels."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel rectangle in level-0 pixels; it may reach beyond the slide."""

    x: int
    """Left edge."""
    y: int
    """Upper edge."""
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse a box without area."""
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a box must be at least 1 x 1, got {self.width} x {self.height}")

    def grown(self, margin: float) -> "Box":
        """Return the box enlarged on every side by a share of its longer side.

        Parameters
        ----------
        margin : float
            At least 0; 0.1 adds a tenth of the longer side on each of the four sides.

        Examples
        --------
        >>> Box(100, 100, 200, 100).grown(0.1)
        Box(x=80, y=80, width=240, height=140)
        """
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError(f"margin must be a finite share of at least 0, got {margin}")
        extra = round(margin * max(self.width, self.height))
        return Box(self.x - extra, self.y - extra, self.width + 2 * extra, self.height + 2 * extra)

    def intersection_area(self, other: "Box") -> int:
        """Return the area shared with another box, in square pixels, 0 when apart."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(width, 0) * max(height, 0)

    def iou(self, other: "Box") -> float:
        """Return the intersection over union with another box, from 0 to 1."""
        shared = self.intersection_area(other)
        return shared / (self.width * self.height + other.width * other.height - shared)

    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Return the four corners, clockwise on screen from the upper left."""
        right, lower = self.x + self.width, self.y + self.height
        return (self.x, self.y), (right, self.y), (right, lower), (self.x, lower)


@dataclass(frozen=True, slots=True)
class Region:
    """One annotated area of a slide, usually a glomerulus."""

    region_id: str
    """Unique within its slide: the id of the file, or the number in the file."""
    polygon: tuple[Point, ...]
    """Outline in level-0 pixels, at least three points, not closed."""
    labels: tuple[str, ...] = ()
    """Classes as written in the file, in its order; empty when the file has none."""
    slide_id: str | None = None
    """The slide of the region, where the file states it (CSV, COCO)."""
    holes: tuple[tuple[Point, ...], ...] = field(default=(), repr=False)
    """Rings that are cut out; the box of the region does not depend on them."""
    source_id: str | None = field(default=None, compare=False, repr=False)
    """The id in the file that it was read from, such as QuPath's UUID; written back."""
    source_classes: tuple[str, ...] | None = field(default=None, compare=False, repr=False)
    """Classes in that file, where `labels` may be others by ``--class NAME=LABEL``."""

    def __post_init__(self) -> None:
        """Refuse an outline that bounds no area."""
        if len(self.polygon) < 3:
            raise ValueError(f"region {self.region_id!r} has {len(self.polygon)} points, needs 3")
        if not all(math.isfinite(value) for point in self.polygon for value in point):
            raise ValueError(f"region {self.region_id!r} has a coordinate that is not finite")

    @classmethod
    def from_box(
        cls,
        region_id: str,
        box: Box,
        *,
        labels: Sequence[str] = (),
        slide_id: str | None = None,
    ) -> "Region":
        """Make a rectangular region."""
        return cls(region_id, box.corners(), tuple(labels), slide_id)

    def box(self) -> Box:
        """Return the smallest box of integer pixels that contains the region."""
        xs = [x for x, _ in self.polygon]
        ys = [y for _, y in self.polygon]
        left, upper = math.floor(min(xs)), math.floor(min(ys))
        width = max(math.ceil(max(xs)) - left, 1)
        height = max(math.ceil(max(ys)) - upper, 1)
        return Box(left, upper, width, height)
