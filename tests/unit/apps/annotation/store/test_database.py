import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psycopg.errors
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from glomerulab.apps.annotation.store.annotations import item_at
from glomerulab.apps.annotation.store.database import Store, as_store_error, open_store
from glomerulab.apps.annotation.store.imports import import_model_calls
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.apps.annotation.store.migrations.versions.r0001_first_tables import upgrade
from glomerulab.apps.annotation.store.schema import metadata
from glomerulab.apps.annotation.store.study import has_study
from glomerulab.errors import StoreBusyError, StoreError
from tests.support.annotation_studies import OWNER, make_study, save


def test_a_missing_database_is_created_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="annotate create"):
        open_store(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []
    with open_store(tmp_path / "none.db", create=True) as store:
        assert not has_study(store)


def test_saved_annotations_survive_reopening(store: Store, place: str) -> None:
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
        ("mysql://a:secret@b/c", "postgresql"),
        ("postgresql://a:b:c", "database URL"),
        ("no-such-folder/a.db", "folder"),
    ],
)
def test_a_location_that_cannot_be_a_database_is_an_error(place: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(place, create=True)
    assert "secret" not in str(caught.value)


def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        open_store(f"postgresql://me:secret@/db?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_and_a_file_of_another_kind_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="file"):
        open_store(tmp_path)
    text = tmp_path / "notes.db"
    text.write_text("not a database, but long enough to look at\n" * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        open_store(text)
    assert text.read_text().startswith("not a database")


def test_a_writer_waits_for_another_program_and_then_raises_a_busy_error(tmp_path: Path) -> None:
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


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("message of SQLite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        (_sqlite_error(sqlite3.SQLITE_BUSY), StoreBusyError, "try again"),
        (_sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreBusyError, "try again"),
        (_sqlite_error(sqlite3.SQLITE_FULL), StoreError, "disk is full"),
        (_sqlite_error(sqlite3.SQLITE_READONLY_DIRECTORY), StoreError, "read-only"),
        (_sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), StoreError, "disk"),
        (_sqlite_error(sqlite3.SQLITE_CORRUPT), StoreError, "damaged"),
        (_sqlite_error(sqlite3.SQLITE_ERROR), StoreError, "message of SQLite"),
        (psycopg.errors.LockNotAvailable(), StoreBusyError, "try again"),
        (psycopg.errors.DiskFull(), StoreError, "disk is full"),
        (psycopg.errors.ReadOnlySqlTransaction(), StoreError, "read-only"),
        (psycopg.errors.InvalidPassword(), StoreError, "password"),
        (psycopg.OperationalError("no route\nto host"), StoreError, r"reached \(no route\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_driver_error_becomes_a_store_error_with_the_way_out(
    cause: Exception, kind: type, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        raise as_store_error(DBAPIError("SELECT 1", None, cause), "a.db")
    assert type(caught.value) is kind
    assert caught.value.where == "a.db"


def test_the_migrations_create_the_tables_of_the_schema(store: Store) -> None:
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(store: Store, place: str) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"newer glomerulab .*9999"):
        open_store(place)
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT * FROM alembic_version").scalar() == "9999"


def test_the_model_calls_of_an_earlier_version_stay_in_use(store: Store, place: str) -> None:
    make_study(store, n_images=2, show_model=True)
    calls = pd.DataFrame({"image_id": ["g000"]}).assign(
        probability_normal=0.1, probability_mspgn=0.1, probability_fsg=0.1, probability_cgn=0.7
    )
    import_model_calls(store, calls, source="run", by=OWNER)
    shown = item_at(store, "anna", 1).model
    with store.writing() as connection:  # as the first version had them
        for statement in (
            "CREATE TABLE old AS SELECT image_id, label_id, probability FROM model_call",
            "DROP TABLE model_call",
            "ALTER TABLE old RENAME TO model_call",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            connection.exec_driver_sql(statement)
    store.close()
    with open_store(place) as again:
        assert item_at(again, "anna", 1).model == shown
        assert verify_store(again).problems == ()


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        open_store(path)
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert tables == [("songs",)]


def test_programs_that_open_an_empty_database_at_once_create_its_tables_once(place: str) -> None:
    def open_and_count(_number: int) -> int:
        with open_store(place, create=True) as store, store.reading() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM ledger_head").scalar_one())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(open_and_count, range(4))) == [1, 1, 1, 1]


def test_every_table_has_a_primary_key() -> None:
    assert all(table.primary_key.columns for table in metadata.tables.values())


def test_an_assignment_is_unique_in_the_schema() -> None:
    unique = {
        tuple(column.name for column in constraint.columns)
        for constraint in metadata.tables["assignment"].constraints
    }
    assert ("account_id", "image_id", "purpose") in unique
    assert ("account_id", "position") in unique


def test_the_ledger_begins_empty_with_a_head() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            upgrade()
        heads = connection.exec_driver_sql("SELECT head_id, sequence, hash FROM ledger_head").all()
        assert heads == [(1, 0, "0" * 64)]
        assert connection.exec_driver_sql("SELECT count(*) FROM event").scalar() == 0
    engine.dispose()
