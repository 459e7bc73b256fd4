"""Open the database of a study, a SQLite file or a PostgreSQL database, and run transactions.

Every write is one transaction that first locks the head of the ledger: writes happen one after
another, and each is on the disk when it returns. Long work is written in parts, so that others save
in between. Opening runs the migrations that are missing.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from glomerulab.apps.annotation.store.schema import ledger_head
from glomerulab.errors import StoreBusyError, StoreError
from glomerulab.runtime.files import private_opener

Item = TypeVar("Item")

PART = 50
"""Entries of a transaction of long work: some ten milliseconds, for which a person's save waits."""
PART_ROWS = 500
"""The same of rows that share one entry."""

# More connections than a web server has worker threads, so that none waits for another's.
POOL = {"pool_size": 16, "max_overflow": 32}

MIGRATION_LOCK_ID = 0x676C6F6D  # "glom": any number that all versions of this program agree on

SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and save again: nothing was lost or changed",
    sqlite3.SQLITE_READONLY: "the database is read-only; make the file and its folder writable",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database; give the database of a study",
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged; restore the latest backup and keep the damaged file"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the database cannot be opened; check that its folder exists and is writable"
    ),
    sqlite3.SQLITE_PERM: "this user may not open the database; change the file's permissions",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write; check the disk before you continue",
}
SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

POSTGRES_REASONS = {
    "53100": "the database server's disk is full; make room and save again: nothing was changed",
    "25006": "the database server is read-only; connect to one that accepts writes",
    "53300": "the database server accepts no more connections; raise its limit or try again",
    "28000": "the database server rejects this user; check the user in the database URL",
    "28P01": "the database server rejects this password; check the password",
    "3D000": "the database server has no such database; create it first (createdb)",
    "42501": "this user may not do that in the database; grant the permission",
}
POSTGRES_BUSY = {"55P03", "40001", "40P01", "57014"}

DECODING_ERRORS = (
    SQLAlchemyError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
    OverflowError,
)
"""What a row raises whose cells are not what this program writes."""

BUSY = "another program holds the database; try again"


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield consecutive parts of up to `size` items."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


class Store:
    """The open database of one study; safe to share between threads."""

    def __init__(
        self, engine: Engine, *, address: str, location: str, busy_timeout_s: float
    ) -> None:
        self._engine = engine
        self._address = address
        self.location = location
        """Path or URL without password."""
        self._busy_timeout_s = busy_timeout_s
        # SQLite lets waiting writers poll; threads of one process queue here instead.
        self._write_lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the database.

        Raises
        ------
        StoreError
            If the database fails.
        """
        options: dict[str, Any] = {}
        if self._engine.dialect.name == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        try:
            with (
                self._engine.connect().execution_options(**options) as connection,
                connection.begin(),
            ):
                yield connection
        except DECODING_ERRORS as error:
            raise as_store_error(error, self.location) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection with the only write transaction, and commit it at the end.

        Raises
        ------
        StoreError
            If the database fails or stays locked for too long; then nothing was written.
        """
        if not self._write_lock.acquire(timeout=self._busy_timeout_s):
            raise StoreBusyError(BUSY, where=self.location)
        try:
            with (
                self._engine.connect().execution_options(writes=True) as connection,
                connection.begin(),
            ):
                connection.execute(select(ledger_head.c.head_id).with_for_update())
                yield connection
        except DECODING_ERRORS as error:
            raise as_store_error(error, self.location) from error
        finally:
            self._write_lock.release()

    def write_in_parts(
        self,
        items: Iterable[Item],
        write: Callable[[Connection, list[Item]], None],
        *,
        size: int = PART,
    ) -> None:
        """Write many items in short transactions, with pauses in which others write.

        If the program is killed in between, the first parts are written: the caller makes sure
        that the same work can be done again, and that a part is not taken for the whole.

        Parameters
        ----------
        write : callable
            Writes some of the items inside a transaction of `writing`.
        size : int
            Items of a transaction.
        """
        for part in batched(items, size):
            start = time.monotonic()
            with self.writing() as connection:
                write(connection, part)
            time.sleep(time.monotonic() - start)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __reduce__(self) -> tuple[object, ...]:
        """Open the same database, so that another process can work on it."""
        reopen = partial(open_store, busy_timeout_s=self._busy_timeout_s)
        return reopen, (self._address,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def open_store(
    location: str | Path, *, create: bool = False, busy_timeout_s: float = 10.0
) -> Store:
    """Open the database of a study, and bring its tables up to date.

    Parameters
    ----------
    location : str or Path
        Path of a SQLite file, or ``postgresql://user:password@host/database``.
    create : bool, default False
        Create the file if it does not exist. A PostgreSQL database must exist; its tables are
        created.
    busy_timeout_s : float, default 10.0
        How long a write waits for another program, in seconds.

    Raises
    ------
    StoreError
        If there is no such database, it belongs to another program or to a newer version of this
        one, or it cannot be opened.
    """
    url = _database_url(location)
    is_sqlite = url.drivername == "sqlite"
    name = str(location) if is_sqlite else url.render_as_string(hide_password=True)
    if is_sqlite:
        _check_file(Path(str(url.database)), create=create)
        engine = _sqlite_engine(url, busy_timeout_s)
    else:
        engine = _postgres_engine(url, busy_timeout_s)
    try:
        _migrate(engine, name)
    except DECODING_ERRORS as error:
        engine.dispose()
        raise as_store_error(error, name) from error
    except StoreError:
        engine.dispose()
        raise
    address = str(url.database) if is_sqlite else url.render_as_string(hide_password=False)
    return Store(engine, address=address, location=name, busy_timeout_s=busy_timeout_s)


def as_store_error(error: Exception, location: str) -> StoreError:
    """Translate an error of the driver or of the decoding of a row.

    It is a `StoreBusyError` where a retry may help.
    """
    if not isinstance(error, DBAPIError):
        return StoreError(
            f"the database is damaged ({type(error).__name__}: {_first_line(error)}); run "
            "`glomerulab annotate verify`, restore the latest backup and keep the damaged file",
            where=location,
        )
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
        return StoreBusyError(BUSY, where=location)
    return StoreError(reason or f"the database failed: {_first_line(cause)}", where=location)


def _first_line(cause: BaseException | None) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


def _database_url(location: str | Path) -> URL:
    if "://" not in str(location):
        return URL.create("sqlite", database=str(Path(location).absolute()))
    try:
        url = make_url(str(location))
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "this is not a database URL; give postgresql://user@host/database or a file",
            where=str(location),
        ) from error
    if url.get_backend_name() != "postgresql":
        raise StoreError(
            "this kind of database is not supported; give a postgresql:// URL or a SQLite file",
            where=url.render_as_string(hide_password=True),
        )
    return url.set(drivername="postgresql+psycopg")


def _check_file(path: Path, *, create: bool) -> None:
    if not path.exists():
        if not create:
            raise StoreError(
                "there is no such database; create one with `glomerulab annotate create`",
                where=str(path),
            )
        if not path.parent.is_dir():
            raise StoreError(
                "the database cannot be created because its folder does not exist", where=str(path)
            )
        _create_private(path)
    elif not path.is_file():
        raise StoreError("this is not a file; give the database of a study", where=str(path))


def _create_private(path: Path) -> None:
    """Create an empty file that others cannot read; SQLite gives its side files the same mode."""
    try:
        os.close(private_opener(str(path), os.O_CREAT | os.O_RDWR))
    except OSError as error:
        raise StoreError(
            f"the database cannot be created: {error.strerror}", where=str(path)
        ) from error


def _sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s}, **POOL)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        # Transactions begin below, not where the driver guesses that they might.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # each commit reaches the disk
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: a transaction that has read cannot be given it later.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: URL, busy_timeout_s: float) -> Engine:
    milliseconds = round(busy_timeout_s * 1000)
    options = f"-c lock_timeout={milliseconds} -c synchronous_commit=on"
    given = url.query.get("options")
    if given:
        options = f"{given} {options}"
        url = url.difference_update_query(["options"])
    return create_engine(
        url,
        connect_args={"options": options, "connect_timeout": 10},
        pool_pre_ping=True,
        **POOL,
    )


def _migrate(engine: Engine, location: str) -> None:
    """Run the migrations that the database lacks, all or none."""
    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection, connection.begin():
        revision = _current_revision(connection, location)
    if revision == script.get_current_head():
        return
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": MIGRATION_LOCK_ID})
        _upgrade(connection, script, location)


def _current_revision(connection: Connection, location: str) -> str | None:
    """Return the revision of the tables, None if the database is empty."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).get_table_names():
        raise StoreError(
            "this database belongs to another program; give the database of a study",
            where=location,
        )
    return revision


def _upgrade(connection: Connection, script: ScriptDirectory, location: str) -> None:
    revision = _current_revision(connection, location)  # another process may have migrated by now
    if revision is not None:
        _check_known(revision, script, location)
    context = MigrationContext.configure(connection)
    missing = reversed(list(script.iterate_revisions("head", revision or "base")))
    with Operations.context(context):
        for migration in missing:
            migration.module.upgrade()
            context.stamp(script, migration.revision)


def _check_known(revision: str, script: ScriptDirectory, location: str) -> None:
    try:
        script.get_revision(revision)
    except (CommandError, ResolutionError) as error:
        raise StoreError(
            f"a newer glomerulab or another program wrote this database (its tables have version "
            f"{revision}, this glomerulab knows {script.get_current_head()}); open it with that "
            "program",
            where=location,
        ) from error
