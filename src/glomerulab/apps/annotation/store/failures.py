"""What a database says when it fails, in words that name the place and the way out."""

import sqlite3

from sqlalchemy.exc import DBAPIError

from glomerulab.errors import StoreBusyError, StoreError

__all__ = ["as_store_error"]

SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and save again: nothing was lost or changed",
    sqlite3.SQLITE_READONLY: "is read-only; make the file and its folder writable",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore the newest backup and keep this file",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; does its folder exist, and may you write to it?",
    sqlite3.SQLITE_PERM: "may not be opened by this user",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write; look at the disk before going on",
}
SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

POSTGRES_REASONS = {
    "53100": "the database server's disk is full; make room and save again: nothing was changed",
    "25006": "the database server is read-only",
    "53300": "the database server takes no more connections",
    "28000": "the database server refuses this user",
    "28P01": "the database server refuses this password",
    "3D000": "the database server has no such database; create it first (createdb)",
    "42501": "this user may not do that in the database",
}
POSTGRES_BUSY = {"55P03", "40001", "40P01", "57014"}

BUSY = "another program holds the database; try again"


def as_store_error(error: DBAPIError, place: str) -> StoreError:
    """Translate an error of the database driver.

    Parameters
    ----------
    error : DBAPIError
    place : str
        The database, as the user knows it, without password.

    Returns
    -------
    StoreError
        A `StoreBusyError` where trying again may help.
    """
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        busy, reason = code in SQLITE_BUSY, SQLITE_REASONS.get(code)
    else:
        state = getattr(cause, "sqlstate", None)
        busy, reason = state in POSTGRES_BUSY, POSTGRES_REASONS.get(str(state))
        if state is None:
            reason = f"the database server cannot be reached ({_first_line(cause)})"
    if busy:
        return StoreBusyError(BUSY, where=place)
    return StoreError(reason or f"the database failed: {_first_line(cause)}", where=place)


def _first_line(cause: BaseException | None) -> str:
    text = str(cause).strip()
    return text.splitlines()[0] if text else type(cause).__name__
