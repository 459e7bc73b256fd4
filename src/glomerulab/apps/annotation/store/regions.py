"""Regions drawn around glomeruli on slides; every change is a new version in the ledger."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import Connection, RowMapping, select

from glomerulab.apps.annotation.records import (
    Account,
    DrawnRegion,
    RegionSaveResult,
    SaveConflictError,
)
from glomerulab.apps.annotation.store.accounts import get_account
from glomerulab.apps.annotation.store.database import PART, Store, batched
from glomerulab.apps.annotation.store.ledger import (
    Event,
    NewEntry,
    append_event,
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
IMPORT = "import"
"""Kind of the entry that ends an import of many regions."""
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
    holes: tuple[tuple[Point, ...], ...] = ()
    """Rings that are cut out."""


def save_region(store: Store, region: RegionInput, *, login: str) -> RegionSaveResult:
    """Save one region, durably and only once."""
    _check_ids([region])
    with store.writing() as connection:
        actor = get_account(connection, login)
        saved, new = _new_entries(connection, actor, [region])
        made = append_events(connection, list(new.values()), kind=KIND, actor=actor.login)
        (entry,) = [*saved.values(), *made]
        return RegionSaveResult(_region_from_event(entry), already_saved=not made)


def save_regions(
    store: Store, regions: Sequence[RegionInput], *, login: str, track: Track = silent
) -> int:
    """Save several regions, and return how many are new; see `save_region`.

    Every region is checked before the first is saved. Many are saved in parts, and are there for
    `list_regions` when the last is saved: all or none. If the program is killed in between, the
    same call again, or one with some of the same regions, continues: a save key is used once.
    """
    _check_ids(regions)
    import_id = None
    if len(regions) > PART:
        import_id = str(uuid5(NAMESPACE_OID, "\n".join([login, *(r.save_key for r in regions)])))
    with store.reading() as connection:
        actor = get_account(connection, login)
        regions = list(_resumed(connection, regions, import_id))
        for part in batched(regions, PART):
            _new_entries(connection, actor, part)
    n_new = 0

    def write(connection: Connection, part: Sequence[RegionInput]) -> None:
        nonlocal n_new
        actor = get_account(connection, login)
        _, new = _new_entries(connection, actor, part, import_id)
        n_new += len(append_events(connection, list(new.values()), kind=KIND, actor=actor.login))

    store.write_in_parts(track(regions, "Saving regions", len(regions)), write)
    if import_id is not None:
        with store.writing() as connection:
            if import_id not in _finished(connection):
                payload = {"n_regions": len(regions)}
                append_event(
                    connection, kind=IMPORT, subject=import_id, actor=actor.login, payload=payload
                )
    return n_new


def known_regions(store: Store, region_ids: Iterable[str]) -> set[str]:
    """Return which regions were drawn before, whoever drew or deleted them."""
    with store.reading() as connection:
        finished = _finished(connection)
        return {
            region_id
            for part in batched(region_ids, PART)
            for region_id, entry in _latest_entries(connection, part).items()
            if _is_there(entry, finished)
        }


def list_regions(store: Store, *, login: str, slide_id: str | None = None) -> list[DrawnRegion]:
    """Return the latest versions of the regions that an account may see, in the order of drawing.

    An owner sees all; an annotator their own, and all if the study shows the others' work. Deleted
    regions are left out.
    """
    return list(each_region(store, login=login, slide_id=slide_id))


def each_region(store: Store, *, login: str, slide_id: str | None = None) -> Iterator[DrawnRegion]:
    """Yield what `list_regions` returns; thousands at once hold up others while they are freed."""
    with store.reading() as connection:
        reader = get_account(connection, login)
        sees_all = reader.role == "owner" or get_study(connection).settings.show_others
        for region in _latest_regions(connection, slide_id, None if sees_all else reader.login):
            is_asked = not region.deleted and slide_id in {None, region.slide_id}
            if is_asked and (sees_all or region.login == reader.login):
                yield region


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
) -> Iterator[DrawnRegion]:
    query = select(event).where(event.c.kind == KIND).order_by(event.c.sequence)
    # Neither changes between versions. A label may hold the same text, so the caller checks again.
    for name, value in (("slide_id", slide_id), ("drawn_by", login)):
        if value is not None:
            part = canonical_json({name: value}).strip("{}")
            query = query.where(event.c.payload.contains(part, autoescape=True))
    latest: dict[str, RowMapping] = {}
    for row in connection.execute(query).mappings():
        latest[row["subject"]] = row  # in the place of the first version: in the order of drawing
    finished = _finished(connection)
    # One after another: the parsed content of thousands takes much more memory than their text.
    for entry in map(event_from_row, latest.values()):
        if _is_there(entry, finished):
            yield _region_from_event(entry)


def _finished(connection: Connection) -> set[str]:
    """Return the imports of which every region is saved."""
    return set(connection.scalars(select(event.c.subject).where(event.c.kind == IMPORT)))


def _is_there(entry: Event, finished: Collection[str | None]) -> bool:
    """Return whether a region is more than a part of an import that was not finished."""
    import_id = entry.payload.get("import")
    return import_id is None or import_id in finished


def _latest_entries(connection: Connection, region_ids: Sequence[str]) -> dict[str, Event]:
    query = (
        select(event)
        .where(event.c.kind == KIND, event.c.subject.in_(region_ids))
        .order_by(event.c.version)
    )
    latest = {row["subject"]: row for row in connection.execute(query).mappings()}
    return {region_id: event_from_row(row) for region_id, row in latest.items()}


def _resumed(
    connection: Connection, regions: Sequence[RegionInput], import_id: str | None
) -> Iterator[RegionInput]:
    """Yield regions; those that another, unfinished import left get a new version in this one."""
    complete = {*_finished(connection), import_id}
    for part in batched(regions, PART):
        latest = _latest_entries(connection, [one.region_id for one in part])
        for region in part:
            entry = latest.get(region.region_id)
            if entry is None or _is_there(entry, complete):
                yield region
                continue
            save_key = str(uuid5(NAMESPACE_OID, f"{entry.payload['import']} {region.save_key}"))
            yield replace(region, expected_version=entry.version, save_key=save_key)


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


def _new_entries(
    connection: Connection,
    actor: Account,
    regions: Sequence[RegionInput],
    import_id: str | None = None,
) -> tuple[dict[str, Event], dict[str, NewEntry]]:
    """Return the entries of earlier tries and the new ones, each by save key."""
    keys, ids = [one.save_key for one in regions], [one.region_id for one in regions]
    saved = {
        row["save_key"]: event_from_row(row)
        for row in connection.execute(select(event).where(event.c.save_key.in_(keys))).mappings()
    }
    latest = _latest_entries(connection, ids)
    cut = set(connection.scalars(select(image.c.region_id).where(image.c.region_id.in_(ids))))
    n_entries = connection.scalar(select(ledger_head.c.sequence)) or 0
    new: dict[str, NewEntry] = {}
    for region in regions:
        content = _payload(region)
        earlier = saved.get(region.save_key)
        if earlier is not None:
            check_save(earlier, KIND, region.region_id, content)
            continue
        current = latest.get(region.region_id)
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
        if import_id is not None:
            first["import"] = import_id
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
    # Entries of earlier versions have no holes; a save of theirs that is sent again must be equal.
    holes = {"holes": [_ring(hole) for hole in region.holes]} if region.holes else {}
    return {
        "slide_id": region.slide_id,
        "box": [box.x, box.y, box.width, box.height],
        "outline": None if outline is None else _ring(outline),
        "labels": list(region.labels),
        "deleted": region.deleted,
        **holes,
    }


def _ring(points: Sequence[Point]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points]


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
        holes=tuple(tuple((x, y) for x, y in hole) for hole in payload.get("holes", ())),
    )
