"""What scripts send and get: checked at the edge, plain records inside."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glomerulab.apps.annotation.records import Annotation, DrawnRegion, Judgement, QueueItem
from glomerulab.apps.annotation.store.regions import RegionToSave
from glomerulab.geometry import Box

__all__ = [
    "Credentials",
    "RecordId",
    "RegionBody",
    "SaveBody",
    "item_json",
    "judgement_json",
    "region_json",
]

MAX_COORDINATE = 10_000_000


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a text may not hold the character NUL")
    return text


RecordId = Annotated[int, Field(ge=1, le=2**31 - 1)]
ShortText = Annotated[str, Field(max_length=200), AfterValidator(_without_nul)]
LongText = Annotated[str, Field(max_length=4000), AfterValidator(_without_nul)]
Coordinate = Annotated[int, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Side = Annotated[int, Field(ge=1, le=MAX_COORDINATE)]
Version = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Credentials(_Body):
    """Who logs in."""

    login: ShortText
    password: Annotated[str, Field(max_length=1000), AfterValidator(_without_nul)]


class SaveBody(_Body):
    """One save of one item."""

    assignment_id: RecordId
    labels: Annotated[dict[ShortText, Literal[0, 1] | None], Field(max_length=64)]
    unsure: bool = False
    skip_reason: ShortText | None = None
    note: LongText = ""
    expected_version: Version
    """Of the item as it was loaded."""
    save_key: UUID
    """Made when the save is first tried; the same in every further try."""
    seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
    """How long the image was visible."""
    image_mark: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the item as it was shown."""

    def judgement(self) -> Judgement:
        """Return what is said of the image."""
        reason = (self.skip_reason or "").strip() or None
        return Judgement(self.labels, self.unsure, reason, self.note.strip())


class RegionBody(_Body):
    """One save of one box."""

    region_id: UUID
    x: Coordinate
    y: Coordinate
    width: Side
    height: Side
    expected_version: Version
    save_key: UUID
    deleted: bool = False

    def region(self, slide_id: str) -> RegionToSave:
        """Return what is to be saved."""
        return RegionToSave(
            region_id=self.region_id.hex,
            slide_id=slide_id,
            box=Box(self.x, self.y, self.width, self.height),
            expected_version=self.expected_version,
            save_key=str(self.save_key),
            deleted=self.deleted,
        )


def judgement_json(annotation: Annotation) -> dict[str, Any]:
    """Return a saved judgement for the page that shows it."""
    said = annotation.judgement
    return {
        "labels": dict(said.labels),
        "unsure": said.unsure,
        "skip_reason": said.skip_reason,
        "note": said.note,
        "version": annotation.version,
        "saved_at": annotation.saved_at.isoformat(),
    }


def item_json(
    item: QueueItem, *, image_mark: str | None, image_error: str | None
) -> dict[str, Any]:
    """Return an item as the labelling page needs it.

    Parameters
    ----------
    item : QueueItem
    image_mark : str or None
        Of `Site.image_mark`; None if the image cannot be read.
    image_error : str or None
        Why it cannot.

    Returns
    -------
    dict
        Nothing in it tells which image it is: a repeated one must look like any other.
    """
    version = f"?v={image_mark[:16]}" if image_mark else ""
    return {
        "assignment_id": item.assignment_id,
        "place": item.place,
        "n_items": item.n_items,
        "version": item.version,
        "stain": item.image.stain,
        "image_url": f"/items/{item.assignment_id}/image{version}",
        "image_mark": image_mark,
        "image_error": image_error,
        "saved": None if item.annotation is None else judgement_json(item.annotation),
        "model": None if item.model is None else dict(item.model),
        "others": [judgement_json(other) | {"who": other.login} for other in item.others],
    }


def region_json(region: DrawnRegion, *, may_edit: bool) -> dict[str, Any]:
    """Return a drawn box for the page that shows it."""
    box = region.box
    return {
        "region_id": region.region_id,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "version": region.version,
        "login": region.login,
        "deleted": region.deleted,
        "may_edit": may_edit,
    }
