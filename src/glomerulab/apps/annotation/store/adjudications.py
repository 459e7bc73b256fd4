"""Disagreements of readers and their adjudication: by majority, a third reader, or consensus.

An adjudicated image keeps its readings. A further adjudication is a new version beside the old one.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from sqlalchemy import Connection, func, select

from glomerulab.apps.annotation.consensus import (
    differing_labels,
    final_labels,
    majority_labels,
)
from glomerulab.apps.annotation.label_validation import validate_labels, validate_text
from glomerulab.apps.annotation.records import (
    Adjudication,
    AdjudicationMethod,
    AdjudicationSummary,
    Annotation,
    Disagreement,
    ImageReadings,
    Labels,
    SaveConflictError,
    Study,
)
from glomerulab.apps.annotation.store.accounts import require_adjudicator, require_owner
from glomerulab.apps.annotation.store.annotations import latest_by_image, without_skips
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import (
    Event,
    NewEntry,
    append_events,
    event_from_row,
    find_save,
    latest_event,
)
from glomerulab.apps.annotation.store.schema import account, assignment, event, image
from glomerulab.apps.annotation.store.study import (
    get_image,
    get_study,
    image_from_row,
    read_study,
)
from glomerulab.taxonomy import Taxonomy

KIND = "adjudication"


def list_image_readings(store: Store, *, by: str) -> list[ImageReadings]:
    """Return every image with its readings and adjudication to an owner, oldest first."""
    with store.reading() as connection:
        require_owner(connection, by)
        return _image_readings(connection)


def find_image_readings(store: Store, image_id: str, *, by: str) -> ImageReadings:
    """Return one image with its readings and adjudication to an owner or adjudicator."""
    with store.reading() as connection:
        require_adjudicator(connection, by)
        get_image(connection, image_id, get_study(connection).image_root)
        return _image_readings(connection, image_id)[0]


def list_disagreements(
    store: Store, *, by: str, include_adjudicated: bool = False
) -> list[Disagreement]:
    """Return the images on which readers disagree, in the order of addition.

    Images of which enough readers left labels unknown are among them, without differing labels.
    Images that are adjudicated are included if the adjudication is stale, or with
    `include_adjudicated`, whether their readers disagree or not.
    """
    with store.reading() as connection:
        require_adjudicator(connection, by)
        found = _disagreements(_image_readings(connection), get_study(connection))
    return [one for one in found if include_adjudicated or one.adjudication is None or one.stale]


def list_incomplete(store: Store, *, by: str) -> list[ImageReadings]:
    """Return the images that too few people labelled, in the order of addition.

    They have no final labels, and no readers who differ: someone skipped them, has not read them
    yet, or left labels unknown.
    """
    with store.reading() as connection:
        require_adjudicator(connection, by)
        study, images = get_study(connection), _image_readings(connection)
    return [one for one in images if _basis(one, study) == "incomplete"]


def list_skipped(incomplete: Sequence[ImageReadings]) -> list[str]:
    """Return the ids of the incomplete images that someone skipped and that wait for nobody."""
    return [one.image.image_id for one in incomplete if one.skips and not one.waiting]


def adjudicate(
    store: Store,
    image_id: str,
    labels: Labels | None,
    *,
    by: str,
    expected_version: int,
    save_key: str,
    note: str = "",
) -> Adjudication:
    """Adjudicate an image by consensus, durably and only once.

    Parameters
    ----------
    labels : mapping of str to int or None, or None
        The labels agreed on; None leaves the image out, since nobody can label it.
    by : str
        Login of an owner or adjudicator.
    expected_version : int
        Version of the adjudication that the owner saw, 0 if there was none.
    save_key : str
        As in `save_annotation`.

    Raises
    ------
    SaveConflictError
        If the image was adjudicated since; its `current` is that adjudication.
    """
    with store.writing() as connection:
        actor = require_adjudicator(connection, by)
        study = get_study(connection)
        get_image(connection, image_id, study.image_root)
        content = {
            "labels": validate_labels(labels or {}, study.taxonomy),
            "method": "excluded" if labels is None else "consensus",
            "note": validate_text(note),
        }
        saved = find_save(connection, save_key, kind=KIND, subject=image_id, content=content)
        if saved is not None:
            return _adjudication_from_event(saved)
        current = latest_event(connection, KIND, image_id)
        version = 0 if current is None else current.version
        if version != expected_version:
            raise SaveConflictError(
                f"image {image_id!r} was adjudicated since you opened it (version {version}, you "
                f"had {expected_version}); look at the saved labels, then adjudicate it again",
                current=None if current is None else _adjudication_from_event(current),
            )
        readings = without_skips(latest_by_image(connection, image_id).get(image_id, ()))
        entry = _entry(
            image_id, version=version, readings=readings, content=content, save_key=save_key
        )
        [made] = append_events(connection, [entry], kind=KIND, actor=actor.login)
        return _adjudication_from_event(made)


def adjudicate_all(store: Store, method: AdjudicationMethod, *, by: str) -> AdjudicationSummary:
    """Adjudicate every open disagreement that a rule can decide.

    Parameters
    ----------
    method : {"majority", "third_reader"}
        ``majority``: the label values of more than half of the readers (`majority_labels`).
        ``third_reader``: the labels of the third reader, where one has read the image.
        Many images are written in parts; one that is read or adjudicated meanwhile stays
        unresolved.
    by : str
        Login of an owner or adjudicator.
    """
    if method not in {"majority", "third_reader"}:
        raise ValueError(f"method must be majority or third_reader, got {method!r}")
    with store.reading() as connection:
        actor = require_adjudicator(connection, by)
        study = get_study(connection)
        seen = {
            one.image.image_id: one
            for one in _disagreements(_image_readings(connection), study)
            if one.adjudication is None or one.stale
        }
    decided = {
        image_id: labels
        for image_id, one in seen.items()
        if (labels := _labels_by_rule(method, one, study.taxonomy)) is not None
    }
    resolved: set[str] = set()

    def write(connection: Connection, part: list[str]) -> None:
        changed = _changed(connection, [seen[image_id] for image_id in part])
        entries = [
            _entry(
                image_id,
                version=_version(seen[image_id].adjudication),
                readings=seen[image_id].readings,
                content={"labels": dict(decided[image_id]), "method": method, "note": ""},
                save_key=str(uuid4()),
            )
            for image_id in part
            if image_id not in changed
        ]
        append_events(connection, entries, kind=KIND, actor=actor.login)
        resolved.update(one.subject for one in entries)

    store.write_in_parts(decided, write)
    unresolved = tuple(image_id for image_id in seen if image_id not in resolved)
    return AdjudicationSummary(len(resolved), unresolved)


def count_by_rule(store: Store, *, by: str) -> dict[AdjudicationMethod, int]:
    """Return how many open disagreements each rule of `adjudicate_all` would settle now."""
    found = list_disagreements(store, by=by)
    taxonomy = read_study(store).taxonomy
    methods: tuple[AdjudicationMethod, ...] = ("majority", "third_reader")
    return {
        method: sum(_labels_by_rule(method, one, taxonomy) is not None for one in found)
        for method in methods
    }


def adjudication_history(store: Store, image_id: str, *, by: str) -> list[Adjudication]:
    """Return every adjudication of an image to an owner, oldest first."""
    with store.reading() as connection:
        require_adjudicator(connection, by)
        rows = connection.execute(
            select(event)
            .where(event.c.kind == KIND, event.c.subject == image_id)
            .order_by(event.c.version)
        ).mappings()
        return [_adjudication_from_event(event_from_row(row)) for row in rows]


def _image_readings(connection: Connection, only: str | None = None) -> list[ImageReadings]:
    root = get_study(connection).image_root
    latest = latest_by_image(connection, only)
    waiting = _waiting_by_image(connection)
    entries = connection.execute(
        select(event).where(event.c.kind == KIND).order_by(event.c.sequence)
    ).mappings()
    adjudications = {
        row["subject"]: _adjudication_from_event(event_from_row(row)) for row in entries
    }
    images = select(image).order_by(image.c.position)
    if only is not None:
        images = images.where(image.c.image_id == only)
    return [
        ImageReadings(
            image=image_from_row(row, root),
            image_path=row["image_path"],
            others=dict(json.loads(row["others"])),
            readings=without_skips(latest.get(row["image_id"], ())),
            adjudication=adjudications.get(row["image_id"]),
            skips=tuple(
                one
                for one in latest.get(row["image_id"], ())
                if one.content.skip_reason is not None
            ),
            waiting=waiting.get(row["image_id"], ()),
        )
        for row in connection.execute(images).mappings()
    ]


def _waiting_by_image(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the logins of active accounts that have an image in their queue and not read it."""
    waiting: dict[str, list[str]] = defaultdict(list)
    rows = connection.execute(
        select(assignment.c.image_id, account.c.login)
        .join(account)
        .where(assignment.c.state == "open", assignment.c.purpose != "repeat", account.c.active)
        .order_by(account.c.login)
    )
    for image_id, login in rows:
        waiting[image_id].append(login)
    return {image_id: tuple(logins) for image_id, logins in waiting.items()}


def _basis(one: ImageReadings, study: Study) -> str:
    return final_labels(one, study.taxonomy, n_readers=study.settings.n_readers)[1]


def _disagreements(images: Sequence[ImageReadings], study: Study) -> list[Disagreement]:
    found = []
    for one in images:
        labels = differing_labels([r.content.labels for r in one.readings], study.taxonomy)
        # A stale adjudication is open again even if the readers agree by now.
        if labels or one.adjudication is not None or _is_partial(one, study):
            found.append(Disagreement(one.image, one.readings, labels, one.adjudication, one.stale))
    return found


def _version(adjudication: Adjudication | None) -> int:
    return 0 if adjudication is None else adjudication.version


def _changed(connection: Connection, seen: Sequence[Disagreement]) -> set[str]:
    """Return the images that were read or adjudicated since they were seen."""
    ids = [one.image.image_id for one in seen]
    versions = dict(
        connection.execute(
            select(event.c.subject, func.max(event.c.version))
            .where(event.c.kind == KIND, event.c.subject.in_(ids))
            .group_by(event.c.subject)
        ).all()
    )
    saved: dict[str, set[tuple[int, int]]] = {image_id: set() for image_id in ids}
    query = select(assignment.c.image_id, assignment.c.assignment_id, assignment.c.version).where(
        assignment.c.image_id.in_(ids),
        assignment.c.purpose != "repeat",
        assignment.c.state == "done",
    )
    for image_id, assignment_id, version in connection.execute(query):
        saved[image_id].add((assignment_id, version))
    return {
        one.image.image_id
        for one in seen
        if versions.get(one.image.image_id, 0) != _version(one.adjudication)
        or saved[one.image.image_id] != {(r.assignment_id, r.version) for r in one.readings}
    }


def _is_partial(one: ImageReadings, study: Study) -> bool:
    """Return whether enough people read an image and some left a label unknown."""
    n_readers = study.settings.n_readers
    if len(one.readings) < n_readers:
        return False
    return _basis(replace(one, adjudication=None), study) == "incomplete"


def _labels_by_rule(
    method: AdjudicationMethod, one: Disagreement, taxonomy: Taxonomy
) -> Labels | None:
    """Return the labels that a rule gives; None where it decides nothing or only a part."""
    if not one.labels and not one.stale:
        return None
    if method == "majority":
        return majority_labels([reading.content.labels for reading in one.readings], taxonomy)
    third = [reading for reading in one.readings if reading.purpose == "third"]
    if not third:
        return None
    labels = taxonomy.implied(third[-1].content.labels)
    return None if any(labels[label_id] is None for label_id in one.labels) else labels


def _entry(
    image_id: str,
    *,
    version: int,
    readings: Sequence[Annotation],
    content: Mapping[str, object],
    save_key: str,
) -> NewEntry:
    """Return the entry of the adjudication that follows a version."""
    payload = {**content, "readings": [reading.sequence for reading in readings]}
    return NewEntry(image_id, version + 1, payload, save_key)


def _adjudication_from_event(entry: Event) -> Adjudication:
    payload = entry.payload
    return Adjudication(
        sequence=entry.sequence,
        image_id=entry.subject,
        version=entry.version,
        labels=payload["labels"],
        method=payload["method"],
        login=entry.actor,
        note=payload["note"],
        readings=tuple(payload["readings"]),
        saved_at=entry.at,
    )
