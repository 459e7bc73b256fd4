import sqlite3
from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.study import has_study
from glomerulab.errors import StoreBusyError, StoreError
from tests.support.annotation_studies import make_study, save


def test_a_database_that_is_not_there_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="annotate create"):
        open_store(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []
    with open_store(tmp_path / "none.db", create=True) as store:
        assert not has_study(store)


def test_what_was_saved_is_there_when_the_database_is_opened_again(
    store: Store, place: str
) -> None:
    make_study(store)
    saved = save(store, "anna", "g001", {"cgn": 1})
    store.close()
    with open_store(place) as again:
        assert save(again, "anna", "g001", {"cgn": 0}).version == saved.version + 1


def test_every_commit_of_sqlite_reaches_the_disk(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db", create=True) as store, store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mysql://a:secret@b/c", "only postgresql"),
        ("postgresql://a:b:c", "not a database URL"),
        ("no-such-folder/a.db", "no such folder"),
    ],
)
def test_a_place_that_cannot_be_a_database_says_why(place: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(place, create=True)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        open_store(f"postgresql://me:secret@/db?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        open_store(tmp_path)
    text = tmp_path / "notes.db"
    text.write_text("not a database, but long enough to look at\n" * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        open_store(text)
    assert text.read_text().startswith("not a database")


def test_a_writer_waits_for_another_program_and_then_says_that_it_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with open_store(path, create=True, busy_timeout_s=0.05) as store:
        make_study(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="try again"):
            save(store, "anna", "g000", {"normal": 1})
        other.execute("ROLLBACK")
        other.close()
        assert save(store, "anna", "g000", {"normal": 1}).version == 1


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db", create=True) as store:
        make_study(store)
        save(store, "anna", "g000", {"normal": 1})
        with store.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="disk is full"):
            _save_again_and_again(store)
        with store.reading() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        before = save(store, "anna", "g000", {"normal": 0}).version
        assert save(store, "anna", "g000", {"normal": 1}).version == before + 1


def test_readers_see_one_state_while_others_write(store: Store) -> None:
    make_study(store)
    count = "SELECT count(*) FROM event"
    with store.reading() as connection:
        before = connection.exec_driver_sql(count).scalar()
        save(store, "anna", "g000", {"normal": 1})
        assert connection.exec_driver_sql(count).scalar() == before
    with store.reading() as connection:
        assert connection.exec_driver_sql(count).scalar() == before + 1


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    make_study(store)
    with pytest.raises(ZeroDivisionError):
        _delete_and_fail(store)
    assert save(store, "anna", "g000", {"normal": 1}).version == 1


def _save_again_and_again(store: Store) -> None:
    for _ in range(1000):
        save(store, "anna", "g000", {"normal": 1}, note="x" * 4000)


def _delete_and_fail(store: Store) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM assignment")
        raise ZeroDivisionError
