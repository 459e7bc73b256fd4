"""JSON that scripts send and receive; requests are validated here."""

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Form
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from glomerulab.apps.annotation.records import (
    Annotation,
    AnnotationContent,
    DrawnRegion,
    QueueItem,
)
from glomerulab.apps.annotation.shapes import structure_of
from glomerulab.apps.annotation.store.regions import RegionInput
from glomerulab.errors import AnnotationError
from glomerulab.geometry import Box, Point, Region
from glomerulab.slides.regions.editing import cut, joined
from glomerulab.slides.regions.polygons import Rings
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL

MAX_COORDINATE = 10_000_000
MAX_POINTS = 10_000
MAX_HOLES = 1_000
MAX_STROKE = 500
"""Points of a stroke; the page thins longer ones."""


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a text cannot contain the character NUL")
    return text


RecordId = Annotated[int, Field(ge=1, le=2**31 - 1)]
ShortText = Annotated[str, Field(max_length=200), AfterValidator(_without_nul)]
LongText = Annotated[str, Field(max_length=4000), AfterValidator(_without_nul)]
# An empty field of a form counts as absent.
FormField = Annotated[ShortText, Form(min_length=1)]
FormText = Annotated[LongText, Form()]
Checkbox = Annotated[
    bool, Form(), WithJsonSchema({"type": ["boolean", "integer", "string"], "examples": ["on"]})
]
# Fields of a body have the JSON type that the page sends: no "1" or true for 1, no "yes" for true.
Coordinate = Annotated[int, Field(strict=True, ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_COORDINATE)]
Version = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Flag = Annotated[int, Field(strict=True, ge=0, le=1)]
Tick = Annotated[bool, Field(strict=True)]


PixelPoint = tuple[
    Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE, allow_inf_nan=False)],
    Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE, allow_inf_nan=False)],
]
"""(x, y) in level-0 pixels."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Credentials(_Body):
    """Login and password."""

    login: ShortText
    password: Annotated[str, Field(max_length=1000), AfterValidator(_without_nul)]


class AnnotationBody(_Body):
    """One save of one item."""

    assignment_id: Annotated[RecordId, Field(strict=True)]
    labels: Annotated[dict[ShortText, Flag], Field(max_length=64)]
    """1 or 0 for every label of the taxonomy; none of a skipped image."""
    unsure: Tick = False
    skip_reason: ShortText | None = None
    note: LongText = ""
    expected_version: Version
    """Of the item as it was loaded."""
    save_key: UUID
    """Made at the first try of the save; the same in every further try."""
    seconds: Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]
    """How long the image was visible."""
    image_mark: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Masked digest of the image that was shown."""

    def content(self) -> AnnotationContent:
        """Return the content to save."""
        reason = (self.skip_reason or "").strip() or None
        return AnnotationContent(self.labels, self.unsure, reason, self.note.strip())


Ring = Annotated[list[PixelPoint], Field(min_length=3, max_length=MAX_POINTS)]


class RegionBody(_Body):
    """One save of one box or polygon."""

    region_id: Annotated[ShortText, Field(min_length=1)]
    """As the server lists it; of a new shape a UUID."""
    x: Coordinate
    y: Coordinate
    width: Side
    height: Side
    expected_version: Version
    save_key: UUID
    deleted: Tick = False
    outline: Ring | None = None
    """Of a turned box, or of another shape; then the box is the one around it."""
    holes: Annotated[list[Ring], Field(max_length=MAX_HOLES)] = []
    """Rings that are cut out of the outline."""
    labels: Annotated[list[ShortText], Field(max_length=64)] | None = None
    """The classes; those that the shape has, if they are not given."""
    proposed: Tick = False
    """A proposal among the classes stays one: accepting or correcting it was undone."""

    def new_id(self) -> str:
        """Return the digits of a new shape's UUID; raise an AnnotationError if it has none."""
        try:
            return UUID(self.region_id).hex
        except ValueError:
            raise AnnotationError(
                f"this slide has no shape {self.region_id!r}, and a new one is named by a UUID"
            ) from None

    def region(self, slide_id: str, region_id: str, *, labels: tuple[str, ...] = ()) -> RegionInput:
        """Return the region to save, with the labels that it has."""
        box, outline = Box(self.x, self.y, self.width, self.height), None
        holes: tuple[tuple[Point, ...], ...] = ()
        if self.outline is not None:
            outline = tuple(self.outline)
            holes = tuple(map(tuple, self.holes))
            box = Region(region_id, outline).box()
        return RegionInput(
            region_id=region_id,
            slide_id=slide_id,
            box=box,
            expected_version=self.expected_version,
            save_key=str(self.save_key),
            deleted=self.deleted,
            labels=labels,
            outline=outline,
            holes=holes,
        )


class OutlineBody(_Body):
    """An outline that is being edited; nothing is saved."""

    outline: Ring
    holes: Annotated[list[Ring], Field(max_length=MAX_HOLES)] = []

    def rings(self) -> Rings:
        """Return outline and holes."""
        return tuple(self.outline), tuple(map(tuple, self.holes))


class EditBody(_Body):
    """A shape to cut along a stroke, or two to join."""

    shapes: Annotated[list[OutlineBody], Field(min_length=1, max_length=2)]
    stroke: Annotated[list[PixelPoint], Field(min_length=2, max_length=MAX_STROKE)] | None = None
    """Cuts one shape; without it two are joined."""

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if len(self.shapes) != (2 if self.stroke is None else 1):
            raise ValueError("a stroke cuts one shape, and two shapes are joined without a stroke")
        return self

    def edited(self) -> list[Rings]:
        """Return the parts of the cut shape, or the joined one."""
        shapes = [one.rings() for one in self.shapes]
        return [joined(shapes)] if self.stroke is None else cut(shapes[0], self.stroke)


def rings_json(rings: Rings) -> dict[str, Any]:
    """Return an outline as the slide page needs it, to a hundredth of a pixel."""
    outline, *holes = (
        [[round(x, 2), round(y, 2)] for x, y in one] for one in (rings[0], *rings[1])
    )
    return {"outline": outline, "holes": holes}


def annotation_json(annotation: Annotation) -> dict[str, Any]:
    """Return a saved annotation as the labelling page needs it."""
    content = annotation.content
    return {
        "labels": dict(content.labels),
        "unsure": content.unsure,
        "skip_reason": content.skip_reason,
        "note": content.note,
        "version": annotation.version,
        "saved_at": annotation.saved_at.isoformat(),
    }


def item_json(
    item: QueueItem, *, image_mark: str | None, image_error: str | None
) -> dict[str, Any]:
    """Return an item as the labelling page needs it, without anything that identifies the image."""
    version = f"?v={image_mark[:16]}" if image_mark else ""
    return {
        "assignment_id": item.assignment_id,
        "place": item.position,
        "n_items": item.n_items,
        "version": item.version,
        "stain": item.image.stain,
        "mpp": item.image.mpp,
        "image_url": f"/items/{item.assignment_id}/image{version}",
        "image_mark": image_mark,
        "image_error": image_error,
        "saved": None if item.annotation is None else annotation_json(item.annotation),
        "model": None if item.model is None else dict(item.model),
        "others": [annotation_json(other) | {"who": other.login} for other in item.others],
    }


def region_json(region: DrawnRegion, *, may_edit: bool, cut: bool = False) -> dict[str, Any]:
    """Return a drawn box as the slide page needs it; `cut` if it was handed out as an image."""
    box = region.box
    is_box = region.outline == box.corners() and not region.holes
    outline = None if is_box else [list(one) for one in region.outline]
    return {
        "region_id": region.region_id,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "version": region.version,
        "login": region.login,
        "deleted": region.deleted,
        "may_edit": may_edit and not cut,
        "cut": cut,
        "outline": outline,
        "holes": [[list(one) for one in hole] for hole in region.holes],
        "labels": list(region.labels),
        "structure": structure_of(region.labels),
        "proposed": PROPOSAL_LABEL in region.labels,
    }
