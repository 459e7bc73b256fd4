"""Opening the database of a study: a SQLite file or a PostgreSQL database, and its transactions.

Every write is one transaction that first takes the head of the ledger, so that writes happen one
after another, and that is on the disk when it returns.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from glomerulab.apps.annotation.store.failures import BUSY, as_store_error
from glomerulab.apps.annotation.store.migrate import migrate
from glomerulab.apps.annotation.store.schema import ledger_head
from glomerulab.errors import StoreBusyError, StoreError

__all__ = ["Store", "open_store"]

POOL = {"pool_size": 16, "max_overflow": 32}
"""More connections than a web server has worker threads, so that none waits for another's."""


class Store:
    """The open database of one study; safe to share between threads."""

    def __init__(self, engine: Engine, *, place: str, busy_timeout_s: float) -> None:
        self._engine = engine
        self.place = place
        """The database as the user knows it, without password."""
        self._busy_timeout_s = busy_timeout_s
        # SQLite lets waiting writers poll; threads of one process queue here instead.
        self._gate = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database.

        Yields
        ------
        Connection

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
        except DBAPIError as error:
            raise as_store_error(error, self.place) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection whose transaction is alone in writing, and commit it at the end.

        Yields
        ------
        Connection

        Raises
        ------
        StoreError
            If the database fails or is held for too long; then nothing was written.
        """
        if not self._gate.acquire(timeout=self._busy_timeout_s):
            raise StoreBusyError(BUSY, where=self.place)
        try:
            with (
                self._engine.connect().execution_options(writes=True) as connection,
                connection.begin(),
            ):
                connection.execute(select(ledger_head.c.head_id).with_for_update())
                yield connection
        except DBAPIError as error:
            raise as_store_error(error, self.place) from error
        finally:
            self._gate.release()

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_store(place: str | Path, *, create: bool = False, busy_timeout_s: float = 10.0) -> Store:
    """Open the database of a study, and bring its tables up to date.

    Parameters
    ----------
    place : str or Path
        Path of a SQLite file, or ``postgresql://user:password@host/database``.
    create : bool, default False
        Make the file if it is not there. A PostgreSQL database must exist; its tables are made.
    busy_timeout_s : float, default 10.0
        How long a write waits for another program, in seconds.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        If there is no such database, it is of another program or of a newer version of this one,
        or it cannot be opened.
    """
    url = _url(place)
    shown = str(place) if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
    if url.drivername == "sqlite":
        _check_file(Path(str(url.database)), create=create)
        engine = _sqlite_engine(url, busy_timeout_s)
    else:
        engine = _postgres_engine(url, busy_timeout_s)
    try:
        migrate(engine, place=shown)
    except DBAPIError as error:
        engine.dispose()
        raise as_store_error(error, shown) from error
    except StoreError:
        engine.dispose()
        raise
    return Store(engine, place=shown, busy_timeout_s=busy_timeout_s)


def _url(place: str | Path) -> URL:
    if "://" not in str(place):
        return URL.create("sqlite", database=str(Path(place).absolute()))
    try:
        url = make_url(str(place))
    except (ArgumentError, ValueError) as error:
        raise StoreError("is not a database URL", where=str(place)) from error
    if url.get_backend_name() != "postgresql":
        raise StoreError(
            "only postgresql:// and the path of a SQLite file are known",
            where=url.render_as_string(hide_password=True),
        )
    return url.set(drivername="postgresql+psycopg")


def _check_file(path: Path, *, create: bool) -> None:
    if not path.exists():
        if not create:
            raise StoreError(
                "no such database; `glomerulab annotate create` makes one", where=str(path)
            )
        if not path.parent.is_dir():
            raise StoreError("cannot be made: no such folder", where=str(path))
    elif not path.is_file():
        raise StoreError("is not a file", where=str(path))


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
        # A writer takes the lock at once: one that has read before cannot be given it later.
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
