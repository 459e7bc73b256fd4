"""Bringing the tables of a database up to this version, or refusing one from the future."""

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from glomerulab.errors import StoreError

__all__ = ["migrate"]

LOCK_ID = 0x676C6F6D  # "glom": any number that all versions of this program agree on


def migrate(engine: Engine, *, place: str) -> None:
    """Run the migrations that the database lacks, all or none.

    Parameters
    ----------
    engine : Engine
    place : str
        The database, for messages.

    Raises
    ------
    StoreError
        If the database is of another program, or of a newer version of this one.
    """
    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    newest = script.get_current_head()
    with engine.connect() as connection, connection.begin():
        found = _revision(connection, place)
    if found == newest:
        return
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
        _upgrade(connection, script, place)


def _revision(connection: Connection, place: str) -> str | None:
    """Return where the database stands, None if it is empty."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and inspect(connection).get_table_names():
        raise StoreError("is the database of another program", where=place)
    return found


def _upgrade(connection: Connection, script: ScriptDirectory, place: str) -> None:
    """Run what is missing, on a connection whose transaction the caller commits."""
    found = _revision(connection, place)  # again: another process may have done it meanwhile
    _refuse_unknown(found, script, place)

    context = MigrationContext.configure(connection)
    missing = reversed(list(script.iterate_revisions("head", found or "base")))
    with Operations.context(context):
        for revision in missing:
            revision.module.upgrade()
            context.stamp(script, revision.revision)


def _refuse_unknown(found: str | None, script: ScriptDirectory, place: str) -> None:
    if found is None:
        return
    try:
        script.get_revision(found)
    except (CommandError, ResolutionError) as error:
        raise StoreError(
            f"was written by a newer glomerulab (tables of version {found}, this one knows "
            f"{script.get_current_head()}), or by another program; use that one",
            where=place,
        ) from error
