import sqlite3

import psycopg.errors
import pytest
from sqlalchemy.exc import DBAPIError

from glomerulab.apps.annotation.store.failures import as_store_error
from glomerulab.errors import StoreBusyError, StoreError


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("what SQLite said")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        (_sqlite_error(sqlite3.SQLITE_BUSY), StoreBusyError, "try again"),
        (_sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreBusyError, "try again"),
        (_sqlite_error(sqlite3.SQLITE_FULL), StoreError, "disk is full"),
        (_sqlite_error(sqlite3.SQLITE_READONLY_DIRECTORY), StoreError, "read-only"),
        (_sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), StoreError, "the disk refuses"),
        (_sqlite_error(sqlite3.SQLITE_CORRUPT), StoreError, "damaged"),
        (_sqlite_error(sqlite3.SQLITE_ERROR), StoreError, "what SQLite said"),
        (psycopg.errors.LockNotAvailable(), StoreBusyError, "try again"),
        (psycopg.errors.DiskFull(), StoreError, "disk is full"),
        (psycopg.errors.ReadOnlySqlTransaction(), StoreError, "read-only"),
        (psycopg.errors.InvalidPassword(), StoreError, "password"),
        (psycopg.OperationalError("no route\nto host"), StoreError, r"reached \(no route\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_says_what_to_do(cause: Exception, kind: type, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        raise as_store_error(DBAPIError("SELECT 1", None, cause), "a.db")
    assert type(caught.value) is kind
    assert caught.value.where == "a.db"
