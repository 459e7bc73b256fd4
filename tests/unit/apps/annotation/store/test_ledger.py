import hashlib
import json
from datetime import UTC, datetime

import pytest

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import append, canonical_json, find_save, newest_event
from glomerulab.errors import AnnotationError


def _append(store: Store, version: int, save_key: str | None = None, **payload: object):
    with store.writing() as connection:
        return append(
            connection,
            kind="annotation",
            subject="7",
            version=version,
            actor="anna",
            payload=payload,
            save_key=save_key,
        )


def test_every_entry_is_sealed_with_the_one_before(store: Store) -> None:
    first, second = _append(store, 1, labels={"cgn": 1}), _append(store, 2, note="新月体")
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.previous_hash == "0" * 64
    assert second.previous_hash == first.hash
    # The hash anyone can compute of the row as it lies in the database.
    with store.reading() as connection:
        row = connection.exec_driver_sql(
            "SELECT sequence, at, actor, kind, subject, version, save_key, payload, previous_hash, "
            "hash FROM event WHERE sequence = 2"
        ).one()
    text = json.dumps(list(row[:-1]), ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == row[-1] == second.hash


def test_an_entry_knows_when_in_utc(store: Store) -> None:
    before = datetime.now(UTC)
    entry = _append(store, 1)
    assert before <= entry.at <= datetime.now(UTC)
    assert entry.at.utcoffset().total_seconds() == 0


def test_the_newest_version_of_a_subject_is_found(store: Store) -> None:
    _append(store, 1)
    newest = _append(store, 2)
    with store.reading() as connection:
        assert newest_event(connection, "annotation", "7") == newest
        assert newest_event(connection, "annotation", "8") is None


def test_a_save_key_finds_its_save_and_no_other(store: Store) -> None:
    entry = _append(store, 1, save_key="key-number-1", note="a")
    with store.reading() as connection:
        known = {"kind": "annotation", "subject": "7"}
        assert find_save(connection, "key-number-1", said={"note": "a"}, **known) == entry
        assert find_save(connection, "key-number-2", said={"note": "a"}, **known) is None
        with pytest.raises(AnnotationError, match="another save"):
            find_save(connection, "key-number-1", said={"note": "b"}, **known)
        with pytest.raises(AnnotationError, match="8 to 64"):
            find_save(connection, "short", said={}, **known)


def test_a_value_has_one_json_text() -> None:
    assert canonical_json({"b": 1, "a": [0.1, None, "é"]}) == '{"a":[0.1,null,"é"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
