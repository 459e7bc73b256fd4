"""Regions drawn around glomeruli on slides; every change is a new version in the ledger."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, select

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
    NewEntry,
    append_events,
    canonical_json,
    check_save,
    check_save_key,
    event_from_row,
    latest_event,
)
from glomerulab.apps.annotation.store.schema import event, image, ledger_head
from glomerulab.apps.annotation.store.study import get_study
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.geometry import Box, Point
from glomerulab.runtime.progress import Track, silent

KIND = "region"
CHUNK = 100
"""Regions per transaction: a few milliseconds, after which others save."""
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


Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield consecutive parts of up to `size` items."""
    left = iter(items)
    while part := tuple(islice(left, size)):
        yield part


def save_region(store: Store, region: RegionInput, *, login: str) -> RegionSaveResult:
    """Save one region, durably and only once."""
    _check_ids([region])
    with store.writing() as connection:
        return _save(connection, get_account(connection, login), [region])[0]


def save_regions(
    store: Store, regions: Sequence[RegionInput], *, login: str, track: Track = silent
) -> list[RegionSaveResult]:
    """Save several regions; see `save_region`.

    Every region is checked before the first is saved, so that a file is imported as a whole or not
    at all. Many are saved in short transactions with pauses, in which others save. If the program
    is killed in between, the same call again saves the rest: a save key is used once.
    """
    _check_ids(regions)
    with store.reading() as connection:
        actor = get_account(connection, login)
        for part in batched(regions, CHUNK):
            _new_entries(connection, actor, part)
    results: list[RegionSaveResult] = []
    chunk: list[RegionInput] = []
    for n_seen, region in enumerate(track(regions, "Saving regions", len(regions)), start=1):
        chunk.append(region)
        if len(chunk) == CHUNK or n_seen == len(regions):
            start = time.monotonic()
            with store.writing() as connection:
                results += _save(connection, get_account(connection, login), chunk)
            if n_seen < len(regions):
                time.sleep(time.monotonic() - start)
            chunk = []
    return results


def known_regions(store: Store, region_ids: Iterable[str]) -> set[str]:
    """Return which regions were drawn before, whoever drew or deleted them."""
    with store.reading() as connection:
        return {
            found
            for chunk in batched(region_ids, CHUNK)
            for found in connection.scalars(
                select(event.c.subject).where(event.c.kind == KIND, event.c.subject.in_(chunk))
            )
        }


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
            for region in _latest_regions(connection, slide_id, None if sees_all else reader.login)
            if not region.deleted
            and slide_id in {None, region.slide_id}
            and (sees_all or region.login == reader.login)
        ]


def find_region(store: Store, region_id: str) -> DrawnRegion | None:
    """Return the latest version of a region, also a deleted one; None if there is none."""
    with store.reading() as connection:
        entry = latest_event(connection, KIND, region_id)
    return None if entry is None else _region_from_event(entry)


def cut_regions(store: Store, slide_id: str) -> set[str]:
    """Return the ids of the regions of a slide that are images of the study."""
    query = select(image.c.region_id).where(
        image.c.slide_id == slide_id, image.c.region_id.is_not(None)
    )
    with store.reading() as connection:
        return set(connection.scalars(query))


def _latest_regions(
    connection: Connection, slide_id: str | None, login: str | None
) -> list[DrawnRegion]:
    query = select(event).where(event.c.kind == KIND).order_by(event.c.version)
    # Neither changes between versions. A label may hold the same text, so the caller checks again.
    for name, value in (("slide_id", slide_id), ("drawn_by", login)):
        if value is not None:
            part = canonical_json({name: value}).strip("{}")
            query = query.where(event.c.payload.contains(part, autoescape=True))
    latest = {row["subject"]: row for row in connection.execute(query).mappings()}
    found = [event_from_row(row) for row in latest.values()]
    return [_region_from_event(one) for one in sorted(found, key=lambda one: one.payload["drawn"])]


def _check_ids(regions: Sequence[RegionInput]) -> None:
    given: dict[str, RegionInput] = {}
    for region in regions:
        if not ID_PATTERN.fullmatch(region.region_id) or not ID_PATTERN.fullmatch(region.slide_id):
            raise AnnotationError(
                "the ids of a region and its slide have 1 to 120 characters, none of them a slash; "
                f"got {region.region_id!r} on slide {region.slide_id!r}"
            )
        check_save_key(region.save_key)
        if given.setdefault(region.region_id, region) != region:
            raise AnnotationError(
                f"region {region.region_id!r} is given twice with different contents; give each "
                "region an id of its own"
            )


def _save(
    connection: Connection, actor: Account, regions: Sequence[RegionInput]
) -> list[RegionSaveResult]:
    """Save regions inside a transaction, with the same few queries for one and for many."""
    saved, new = _new_entries(connection, actor, regions)
    entries = append_events(connection, list(new.values()), kind=KIND, actor=actor.login)
    made = dict(zip(new, entries, strict=True))
    results: list[RegionSaveResult] = []
    for region in regions:
        is_new = region.save_key in made and region.save_key not in saved
        entry = made[region.save_key] if is_new else saved[region.save_key]
        saved[region.save_key] = entry
        results.append(RegionSaveResult(_region_from_event(entry), already_saved=not is_new))
    return results


def _new_entries(
    connection: Connection, actor: Account, regions: Sequence[RegionInput]
) -> tuple[dict[str, Event], dict[str, NewEntry]]:
    """Return the entries of earlier tries and the new ones, each by save key."""
    keys, ids = [one.save_key for one in regions], [one.region_id for one in regions]
    saved = {
        row["save_key"]: event_from_row(row)
        for row in connection.execute(select(event).where(event.c.save_key.in_(keys))).mappings()
    }
    versions = (
        select(event)
        .where(event.c.kind == KIND, event.c.subject.in_(ids))
        .order_by(event.c.version)
    )
    latest = {row["subject"]: row for row in connection.execute(versions).mappings()}
    cut = set(connection.scalars(select(image.c.region_id).where(image.c.region_id.in_(ids))))
    n_entries = connection.scalar(select(ledger_head.c.sequence)) or 0
    new: dict[str, NewEntry] = {}
    for region in regions:
        content = _payload(region)
        earlier = saved.get(region.save_key)
        if earlier is not None:
            check_save(earlier, KIND, region.region_id, content)
            continue
        row = latest.get(region.region_id)
        current = None if row is None else event_from_row(row)
        _check_change(region, None if current is None else _region_from_event(current), actor)
        if region.region_id in cut:  # annotators may have labelled it as an image
            raise AnnotationError(
                f"region {region.region_id!r} was cut and handed out as an image; it can no longer "
                "be changed"
            )
        # The order of drawing is that of the ledger.
        first = {"drawn_by": actor.login, "drawn": n_entries + len(new) + 1}
        if current is not None:
            first = {name: current.payload[name] for name in first}
        new[region.save_key] = NewEntry(
            region.region_id, region.expected_version + 1, {**content, **first}, region.save_key
        )
    return saved, new


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
