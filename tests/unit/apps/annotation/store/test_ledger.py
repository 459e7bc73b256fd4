import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.accounts import set_active
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.ledger import (
    Head,
    append_event,
    canonical_json,
    entry_hash,
    find_save,
    iterate_events,
    latest_event,
    parse_head,
    read_head,
    verify_store,
)
from glomerulab.errors import AnnotationError
from tests.support.annotation_studies import CRESCENT, NORMAL, OWNER, make_study, save
from tests.support.annotation_web import write_images


def _append(store: Store, version: int, save_key: str | None = None, **payload: object):
    with store.writing() as connection:
        return append_event(
            connection,
            kind="annotation",
            subject="7",
            version=version,
            actor="anna",
            payload=payload,
            save_key=save_key,
        )


def test_every_entry_is_chained_to_the_one_before(store: Store) -> None:
    first, second = _append(store, 1, labels={"cgn": 1}), _append(store, 2, note="新月体")
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.previous_hash == "0" * 64
    assert second.previous_hash == first.hash
    # The hash computed from the row in the database.
    with store.reading() as connection:
        row = connection.exec_driver_sql(
            "SELECT sequence, at, actor, kind, subject, version, save_key, payload, previous_hash, "
            "hash FROM event WHERE sequence = 2"
        ).one()
    text = json.dumps(list(row[:-1]), ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == row[-1] == second.hash


def test_an_entry_has_its_time_in_utc(store: Store) -> None:
    before = datetime.now(UTC)
    entry = _append(store, 1)
    assert before <= entry.at <= datetime.now(UTC)
    assert entry.at.utcoffset().total_seconds() == 0


def test_the_newest_version_of_a_subject_is_found(store: Store) -> None:
    _append(store, 1)
    latest = _append(store, 2)
    with store.reading() as connection:
        assert latest_event(connection, "annotation", "7") == latest
        assert latest_event(connection, "annotation", "8") is None


def test_a_save_key_finds_its_save_and_no_other(store: Store) -> None:
    entry = _append(store, 1, save_key="key-number-1", note="a")
    with store.reading() as connection:
        known = {"kind": "annotation", "subject": "7"}
        assert find_save(connection, "key-number-1", content={"note": "a"}, **known) == entry
        assert find_save(connection, "key-number-2", content={"note": "a"}, **known) is None
        with pytest.raises(AnnotationError, match="another save"):
            find_save(connection, "key-number-1", content={"note": "b"}, **known)
        with pytest.raises(AnnotationError, match="8 to 64"):
            find_save(connection, "short", content={}, **known)


def test_a_value_has_one_json_text() -> None:
    assert canonical_json({"b": 1, "a": [0.1, None, "é"]}) == '{"a":[0.1,null,"é"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


LABELS = '"cgn":1'


@pytest.fixture
def filled(store: Store) -> Store:
    make_study(store, n_images=4, repeat_share=0.25)
    save(store, "anna", "g000", NORMAL)
    save(store, "bo", "g000", CRESCENT)
    save(store, "anna", "g001", skip_reason="torn")
    save(store, "anna", "g000", CRESCENT)
    set_active(store, login="bo", active=False, by=OWNER)
    return store


def _tamper(store: Store, statement: str) -> tuple[str, ...]:
    with store.writing() as connection:
        connection.exec_driver_sql(statement)
    return verify_store(store).problems


def test_an_untouched_store_has_no_problems(filled: Store) -> None:
    found = verify_store(filled)
    assert found.problems == ()
    events = list(iterate_events(filled))
    assert found.n_entries == len(events) == events[-1].sequence
    assert found.head == read_head(filled) == Head(events[-1].sequence, events[-1].hash)
    assert [e.kind for e in events[:6]] == [
        "account",
        "study",
        "images",
        "account",
        "account",
        "assignments",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE event SET payload = replace(payload, '{LABELS}', '\"cgn\":0') WHERE sequence = 8",
        "UPDATE event SET actor = 'anna' WHERE sequence = 8",
        "UPDATE event SET at = '2020-01-01T00:00:00.000000+00:00' WHERE sequence = 8",
        "UPDATE event SET payload = 'not json' WHERE sequence = 8",
    ],
)
def test_a_changed_entry_is_found(filled: Store, statement: str) -> None:
    assert "entry 8 (annotation) was changed" in _tamper(filled, statement)


def test_a_removed_entry_is_found(filled: Store) -> None:
    problems = _tamper(filled, "DELETE FROM event WHERE sequence = 8")
    assert "entry 8 is missing" in problems


def test_two_entries_that_changed_places_are_found(filled: Store) -> None:
    for old, new in ((8, 99), (9, 8), (99, 9)):
        problems = _tamper(filled, f"UPDATE event SET sequence = {new} WHERE sequence = {old}")
    assert "entry 8 does not follow the one before it" in problems


def test_last_entries_that_were_cut_off_are_found_by_the_head(filled: Store) -> None:
    earlier = read_head(filled)
    problems = _tamper(filled, f"DELETE FROM event WHERE sequence = {earlier.sequence}")
    assert any("its head names" in problem for problem in problems)
    with filled.reading() as connection:
        last = connection.exec_driver_sql("SELECT max(sequence) FROM event").scalar()
        kept = connection.exec_driver_sql(
            f"SELECT hash FROM event WHERE sequence = {last}"
        ).scalar()
    # A forger who mends the head in the file is found by the head that was kept elsewhere.
    _tamper(filled, f"UPDATE ledger_head SET sequence = {last}, hash = '{kept}'")
    assert any("there were" in p for p in verify_store(filled, earlier=earlier).problems)


def test_a_recomputed_chain_is_found_by_an_earlier_head(filled: Store) -> None:
    earlier = read_head(filled)
    _forge(filled, sequence=8)
    assert verify_store(filled).problems == ()
    assert verify_store(filled, earlier=earlier).problems == (
        f"entry {earlier.sequence} is not the one of the head {earlier}",
    )


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE assignment SET state = 'open' WHERE version > 0", "differs from its annotations"),
        ("UPDATE assignment SET purpose = 'third' WHERE purpose = 'repeat'", "items of entry 6"),
        ("DELETE FROM assignment WHERE version > 0", "annotated and is missing"),
        ("UPDATE image SET image_path = 'x.png' WHERE image_id = 'g001'", "images of entry 3"),
        ("UPDATE account SET role = 'owner' WHERE login = 'anna'", "account anna differs"),
        ("DELETE FROM ledger_head", "0 heads"),
    ],
)
def test_a_table_that_differs_from_the_ledger_is_found(
    filled: Store, statement: str, message: str
) -> None:
    assert any(message in problem for problem in _tamper(filled, statement))


def test_images_that_were_swapped_or_changed_are_named(place: str, tmp_path: Path) -> None:
    with open_store(place, create=True) as store:
        make_study(store, manifest=write_images(tmp_path, 4), repeat_share=0.0)
        files = {}
        for number in range(4):
            image_id = f"glom_{number:03d}"
            files[image_id] = tmp_path / "images" / f"{image_id}.png"
            digest = hashlib.sha256(files[image_id].read_bytes()).hexdigest()
            save(store, "anna", image_id, NORMAL, image_sha256=digest)
        sound = verify_store(store)
        assert (sound.problems, sound.n_images, sound.unread_images) == ((), 4, ())
        first, second, third, fourth = files.values()
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        third.write_bytes(third.read_bytes() + b"x")
        fourth.unlink()
        found = verify_store(store)
    swapped, other, changed = found.problems
    assert "'glom_000'" in swapped
    assert "shown as image 'glom_001'" in swapped
    assert "'glom_001'" in other
    assert "shown as image 'glom_000'" in other
    assert "'glom_002'" in changed
    assert "shown as" not in changed
    assert found.unread_images == ("glom_003",)


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(12, "ab" * 32)
    assert parse_head(f" {head}\n") == head
    with pytest.raises(AnnotationError, match="12:short"):
        parse_head("12:short")


def _forge(store: Store, *, sequence: int) -> None:
    """Change an entry and recompute the rest of the chain, as a forger would."""
    with store.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE event SET actor = 'forged' WHERE sequence = {sequence - 1}"
        )
        rows = connection.exec_driver_sql("SELECT * FROM event ORDER BY sequence").mappings().all()
        previous = "0" * 64
        for row in rows:
            changed = dict(row) | {"previous_hash": previous}
            previous = entry_hash(changed)
            connection.exec_driver_sql(
                f"UPDATE event SET previous_hash = '{changed['previous_hash']}', "
                f"hash = '{previous}' WHERE sequence = {row['sequence']}"
            )
        connection.exec_driver_sql(f"UPDATE ledger_head SET hash = '{previous}'")
