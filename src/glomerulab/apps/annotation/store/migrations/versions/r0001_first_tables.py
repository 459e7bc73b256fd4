"""Create the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table, and the head of an empty ledger."""
    _create_ledger()
    _create_accounts()
    _create_images()
    op.create_table(
        "assignment",
        sa.Column("assignment_id", sa.Integer, primary_key=True),
        sa.Column("batch", sa.Integer, sa.ForeignKey("event.sequence"), nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.account_id"), nullable=False),
        sa.Column("image_id", sa.Text, sa.ForeignKey("image.image_id"), nullable=False),
        sa.Column("purpose", sa.String(8), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("account_id", "position", name="one_item_per_place"),
        sa.UniqueConstraint("account_id", "image_id", "purpose", name="one_reading_per_purpose"),
    )
    op.create_index("ix_assignment_image_id", "assignment", ["image_id"])
    op.create_index("next_open_item", "assignment", ["account_id", "state", "position"])


def _create_ledger() -> None:
    op.create_table(
        "event",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("save_key", sa.String(64), unique=True),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.UniqueConstraint("kind", "subject", "version", name="one_event_per_version"),
    )
    head = op.create_table(
        "ledger_head",
        sa.Column("head_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(head, [{"head_id": 1, "sequence": 0, "hash": "0" * 64}])


def _create_accounts() -> None:
    op.create_table(
        "account",
        sa.Column("account_id", sa.Integer, primary_key=True),
        sa.Column("login", sa.String(40), nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
    )
    op.create_table(
        "web_session",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.account_id"), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
    )
    op.create_index("ix_web_session_account_id", "web_session", ["account_id"])
    op.create_table(
        "secret",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def _create_images() -> None:
    op.create_table(
        "image",
        sa.Column("image_id", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False, unique=True),
        sa.Column("batch", sa.Integer, sa.ForeignKey("event.sequence"), nullable=False),
        sa.Column("image_path", sa.Text, nullable=False),
        sa.Column("patient_id", sa.Text),
        sa.Column("slide_id", sa.Text),
        sa.Column("stain", sa.Text),
        sa.Column("mpp", sa.Float(53)),
        sa.Column("x", sa.Integer),
        sa.Column("y", sa.Integer),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("region_id", sa.Text),
        sa.Column("others", sa.Text, nullable=False),
    )
    op.create_index("ix_image_slide_id", "image", ["slide_id"])
    op.create_index("ix_image_region_id", "image", ["region_id"])
    op.create_table(
        "model_call",
        sa.Column("image_id", sa.Text, sa.ForeignKey("image.image_id"), primary_key=True),
        sa.Column("label_id", sa.Text, primary_key=True),
        sa.Column("probability", sa.Float(53), nullable=False),
    )
