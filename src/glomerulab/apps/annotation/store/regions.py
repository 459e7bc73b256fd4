"""Regions drawn around glomeruli on slides; every change is a new version in the ledger."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from glomerulab.apps.annotation.records import (
    Account,
    DrawnRegion,
    RegionSaveResult,
    SaveConflictError,
)
from glomerulab.apps.annotation.store.accounts import get_account
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import (
    Event,
    append_event,
    event_from_row,
    find_save,
    latest_event,
)
from glomerulab.apps.annotation.store.schema import event, image
from glomerulab.apps.annotation.store.study import get_study
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.geometry import Box, Point

KIND = "region"
ID_PATTERN = re.compile(r"[^\x00-\x1f/\\]{1,120}")


@dataclass(frozen=True, slots=True)
class RegionInput:
    """A new, moved or deleted region, with the version that its client saw."""

    region_id: str
    """Made by the client, such as a UUID; unique in the study, without slashes."""
    slide_id: str
    """Cannot change after the first save."""
    box: Box
    """Level-0 pixels."""
    expected_version: int
    """0 for a new region, else the version that the client saw."""
    save_key: str
    """As in `save_annotation`."""
    deleted: bool = False
    """The history is kept, and so is an image that was cut from the region."""
    labels: tuple[str, ...] = ()
    """Free text, such as the class in a region file."""
    outline: tuple[Point, ...] | None = None
    """Of a region that is not a rectangle, level-0 pixels, not closed."""


def save_region(store: Store, region: RegionInput, *, login: str) -> RegionSaveResult:
    """Save one region, durably and only once."""
    return save_regions(store, [region], login=login)[0]


def save_regions(
    store: Store, regions: Sequence[RegionInput], *, login: str
) -> list[RegionSaveResult]:
    """Save several regions, all or none; see `save_region`."""
    with store.writing() as connection:
        actor = get_account(connection, login)
        return [_save(connection, actor, region) for region in regions]


def list_regions(store: Store, *, login: str, slide_id: str | None = None) -> list[DrawnRegion]:
    """Return the latest versions of the regions that an account may see, in the order of drawing.

    An owner sees all; an annotator their own, and all if the study shows the others' work. Deleted
    regions are left out.
    """
    with store.reading() as connection:
        reader = get_account(connection, login)
        sees_all = reader.role == "owner" or get_study(connection).settings.show_others
        return [
            region
            for region in _latest_regions(connection)
            if not region.deleted
            and slide_id in {None, region.slide_id}
            and (sees_all or region.login == reader.login)
        ]


def _latest_regions(connection: Connection) -> list[DrawnRegion]:
    latest = (
        select(event.c.subject, func.max(event.c.version).label("version"))
        .where(event.c.kind == KIND)
        .group_by(event.c.subject)
        .subquery()
    )
    rows = connection.execute(
        select(event)
        .join(latest, (event.c.subject == latest.c.subject) & (event.c.version == latest.c.version))
        .where(event.c.kind == KIND)
    ).mappings()
    found = [event_from_row(row) for row in rows]
    return [_region_from_event(one) for one in sorted(found, key=lambda one: one.payload["drawn"])]


def _save(connection: Connection, actor: Account, region: RegionInput) -> RegionSaveResult:
    if not ID_PATTERN.fullmatch(region.region_id) or not ID_PATTERN.fullmatch(region.slide_id):
        raise AnnotationError(
            "the ids of a region and its slide have 1 to 120 characters, none of them a slash; "
            f"got {region.region_id!r} on slide {region.slide_id!r}"
        )
    content = _payload(region)
    saved = find_save(
        connection, region.save_key, kind=KIND, subject=region.region_id, content=content
    )
    if saved is not None:
        return RegionSaveResult(_region_from_event(saved), already_saved=True)
    current = latest_event(connection, KIND, region.region_id)
    _check_change(region, None if current is None else _region_from_event(current), actor)
    _check_not_cut(connection, region.region_id)
    first = current.payload if current is not None else {"drawn_by": actor.login, "drawn": None}
    entry = append_event(
        connection,
        kind=KIND,
        subject=region.region_id,
        version=region.expected_version + 1,
        actor=actor.login,
        save_key=region.save_key,
        payload={
            **content,
            "drawn_by": first["drawn_by"],
            "drawn": first["drawn"] or _next_number(connection),
        },
    )
    return RegionSaveResult(_region_from_event(entry), already_saved=False)


def _check_change(region: RegionInput, current: DrawnRegion | None, actor: Account) -> None:
    if current is not None and current.login != actor.login and actor.role != "owner":
        raise NotAllowedError(
            f"someone else drew region {region.region_id!r}; only they or an owner may change it"
        )
    version = 0 if current is None else current.version
    if version != region.expected_version:
        raise SaveConflictError(
            f"region {region.region_id!r} was changed since you opened it (version {version}, you "
            f"had {region.expected_version}); look at the saved region, then save again",
            current=current,
        )
    if current is not None and current.slide_id != region.slide_id:
        raise AnnotationError(
            f"region {region.region_id!r} is on slide {current.slide_id!r} and cannot be moved to "
            f"{region.slide_id!r}"
        )


def _check_not_cut(connection: Connection, region_id: str) -> None:
    """Refuse a change of a region that annotators may have labelled as an image."""
    if connection.scalar(select(image.c.image_id).where(image.c.region_id == region_id).limit(1)):
        raise AnnotationError(
            f"region {region_id!r} was cut and handed out as an image; it can no longer be changed"
        )


def _payload(region: RegionInput) -> dict[str, Any]:
    box, outline = region.box, region.outline
    return {
        "slide_id": region.slide_id,
        "box": [box.x, box.y, box.width, box.height],
        "outline": None if outline is None else [[float(x), float(y)] for x, y in outline],
        "labels": list(region.labels),
        "deleted": region.deleted,
    }


def _region_from_event(entry: Event) -> DrawnRegion:
    payload = entry.payload
    box = Box(*payload["box"])
    outline = payload["outline"]
    return DrawnRegion(
        region_id=entry.subject,
        slide_id=payload["slide_id"],
        box=box,
        outline=box.corners() if outline is None else tuple((x, y) for x, y in outline),
        labels=tuple(payload["labels"]),
        login=payload["drawn_by"],
        version=entry.version,
        deleted=payload["deleted"],
        saved_at=entry.at,
    )


def _next_number(connection: Connection) -> int:
    """Return the number of a new region in the order of drawing."""
    drawn = select(func.count()).where(event.c.kind == KIND, event.c.version == 1)
    return (connection.scalar(drawn) or 0) + 1
