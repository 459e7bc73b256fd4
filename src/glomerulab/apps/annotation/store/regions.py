"""Regions that people draw around glomeruli on slides: a change is a new entry, none is lost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from glomerulab.apps.annotation.records import Account, DrawnRegion, SaveConflictError, SavedRegion
from glomerulab.apps.annotation.store.accounts import account_of
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import Event, append, event_of, find_save, newest_event
from glomerulab.apps.annotation.store.schema import event, image
from glomerulab.apps.annotation.store.study import study_of
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.geometry import Box, Point

__all__ = ["RegionToSave", "list_regions", "regions_in", "save_region", "save_regions"]

KIND = "region"
ID_PATTERN = re.compile(r"[^\x00-\x1f/\\]{1,120}")


@dataclass(frozen=True, slots=True)
class RegionToSave:
    """A region that is new, moved or deleted, and what its client knew when it was."""

    region_id: str
    """Made by the client, such as a UUID; unique in the study, without slashes."""
    slide_id: str
    """Where a region was drawn once, it stays."""
    box: Box
    """Level-0 pixels."""
    expected_version: int
    """0 for a new region, else the version that the client saw."""
    save_key: str
    """As in `save_annotation`."""
    deleted: bool = False
    """Its history stays, and so does an image that was cut from it."""
    labels: tuple[str, ...] = ()
    """Free words, such as the class in a region file."""
    outline: tuple[Point, ...] | None = None
    """Of a region that is no rectangle, level-0 pixels, not closed."""


def save_region(store: Store, region: RegionToSave, *, login: str) -> SavedRegion:
    """Save one region: durable when this returns, and never stored twice.

    Parameters
    ----------
    store : Store
    region : RegionToSave
    login : str

    Returns
    -------
    SavedRegion

    Raises
    ------
    SaveConflictError
        If the region was changed since; its `current` is what stands there.
    NotAllowedError
        If someone else drew it, and `login` is no owner.
    AnnotationError
        If the id is malformed, the region stands on another slide, or it is an image of the study.
    """
    return save_regions(store, [region], login=login)[0]


def save_regions(store: Store, regions: Sequence[RegionToSave], *, login: str) -> list[SavedRegion]:
    """Save several regions, all or none; see `save_region`."""
    with store.writing() as connection:
        actor = account_of(connection, login)
        return [_save(connection, actor, region) for region in regions]


def list_regions(store: Store, *, login: str, slide_id: str | None = None) -> list[DrawnRegion]:
    """Return the regions that stand, as far as one may see them.

    Parameters
    ----------
    store : Store
    login : str
        An owner sees all; an annotator their own, and all if the study shows the others' work.
    slide_id : str, optional
        By default of every slide.

    Returns
    -------
    list of DrawnRegion
        Newest versions, in the order they were drawn, without deleted ones.
    """
    with store.reading() as connection:
        reader = account_of(connection, login)
        sees_all = reader.role == "owner" or study_of(connection).settings.show_others
        return [
            region
            for region in regions_in(connection)
            if not region.deleted
            and slide_id in {None, region.slide_id}
            and (sees_all or region.login == reader.login)
        ]


def regions_in(connection: Connection) -> list[DrawnRegion]:
    """Return the newest version of every region, deleted ones too, in the order of drawing."""
    newest = (
        select(event.c.subject, func.max(event.c.version).label("version"))
        .where(event.c.kind == KIND)
        .group_by(event.c.subject)
        .subquery()
    )
    rows = connection.execute(
        select(event)
        .join(newest, (event.c.subject == newest.c.subject) & (event.c.version == newest.c.version))
        .where(event.c.kind == KIND)
    ).mappings()
    found = [event_of(row) for row in rows]
    return [_region(one) for one in sorted(found, key=lambda one: one.payload["drawn"])]


def _save(connection: Connection, actor: Account, region: RegionToSave) -> SavedRegion:
    if not ID_PATTERN.fullmatch(region.region_id) or not ID_PATTERN.fullmatch(region.slide_id):
        raise AnnotationError(
            "the ids of a region and its slide have 1 to 120 characters, none of them a slash",
            where=f"{region.slide_id!r} {region.region_id!r}",
        )
    said = _payload(region)
    before = find_save(connection, region.save_key, kind=KIND, subject=region.region_id, said=said)
    if before is not None:
        return SavedRegion(_region(before), was_there=True)
    current = newest_event(connection, KIND, region.region_id)
    _check(region, None if current is None else _region(current), actor)
    _refuse_if_cut(connection, region.region_id)
    first = current.payload if current is not None else {"drawn_by": actor.login, "drawn": None}
    entry = append(
        connection,
        kind=KIND,
        subject=region.region_id,
        version=region.expected_version + 1,
        actor=actor.login,
        save_key=region.save_key,
        payload={
            **said,
            "drawn_by": first["drawn_by"],
            "drawn": first["drawn"] or _next_number(connection),
        },
    )
    return SavedRegion(_region(entry), was_there=False)


def _check(region: RegionToSave, current: DrawnRegion | None, actor: Account) -> None:
    """Refuse a change of what is another's, elsewhere, or not what the client saw."""
    if current is not None and current.login != actor.login and actor.role != "owner":
        raise NotAllowedError("someone else drew this region", where=region.region_id)
    version = 0 if current is None else current.version
    if version != region.expected_version:
        raise SaveConflictError(
            f"this region was changed since you saw it (version {version}, you had "
            f"{region.expected_version}); look at what stands there, then save again",
            where=region.region_id,
            current=current,
        )
    if current is not None and current.slide_id != region.slide_id:
        raise AnnotationError(
            f"this region stands on slide {current.slide_id!r}, not {region.slide_id!r}",
            where=region.region_id,
        )


def _refuse_if_cut(connection: Connection, region_id: str) -> None:
    """Refuse a change of what people judge, or have judged, as it was."""
    if connection.scalar(select(image.c.image_id).where(image.c.region_id == region_id).limit(1)):
        raise AnnotationError(
            "this box has been cut and handed out; it can no longer be changed", where=region_id
        )


def _payload(region: RegionToSave) -> dict[str, Any]:
    box, outline = region.box, region.outline
    return {
        "slide_id": region.slide_id,
        "box": [box.x, box.y, box.width, box.height],
        "outline": None if outline is None else [[float(x), float(y)] for x, y in outline],
        "labels": list(region.labels),
        "deleted": region.deleted,
    }


def _region(entry: Event) -> DrawnRegion:
    said = entry.payload
    box = Box(*said["box"])
    outline = said["outline"]
    return DrawnRegion(
        region_id=entry.subject,
        slide_id=said["slide_id"],
        box=box,
        outline=box.corners() if outline is None else tuple((x, y) for x, y in outline),
        labels=tuple(said["labels"]),
        login=said["drawn_by"],
        version=entry.version,
        deleted=said["deleted"],
        saved_at=entry.at,
    )


def _next_number(connection: Connection) -> int:
    """Return the place of a new region in the order of drawing."""
    drawn = select(func.count()).where(event.c.kind == KIND, event.c.version == 1)
    return (connection.scalar(drawn) or 0) + 1
