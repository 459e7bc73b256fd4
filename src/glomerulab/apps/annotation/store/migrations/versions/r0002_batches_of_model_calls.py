"""Give the model's probabilities a batch, so that new ones can be written beside those in use."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column to the primary key; the rows belong to the latest import of the ledger."""
    new = op.create_table(
        "model_call_2",
        sa.Column("image_id", sa.Text, sa.ForeignKey("image.image_id"), primary_key=True),
        sa.Column("label_id", sa.Text, primary_key=True),
        sa.Column("batch", sa.String(64), primary_key=True),
        sa.Column("probability", sa.Float(53), nullable=False),
    )
    names = ("image_id", "label_id", "probability")
    old = sa.table("model_call", *map(sa.column, names))
    rows = sa.select(*old.c, sa.literal(_latest_import(), sa.String(64)))
    op.execute(new.insert().from_select([*names, "batch"], rows))
    op.drop_table("model_call")
    op.rename_table("model_call_2", "model_call")


def _latest_import() -> str:
    event = sa.table("event", sa.column("sequence"), sa.column("kind"), sa.column("payload"))
    query = sa.select(event.c.payload).where(event.c.kind == "model")
    payload = op.get_bind().scalar(query.order_by(event.c.sequence.desc()).limit(1))
    return "" if payload is None else str(json.loads(payload)["sha256"])
