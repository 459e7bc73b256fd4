import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from glomerulab.apps.annotation.store.migrations.versions.r0001_first_tables import upgrade


def test_the_ledger_begins_empty_with_a_head() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            upgrade()
        heads = connection.exec_driver_sql("SELECT head_id, sequence, hash FROM ledger_head").all()
        assert heads == [(1, 0, "0" * 64)]
        assert connection.exec_driver_sql("SELECT count(*) FROM event").scalar() == 0
    engine.dispose()
