"""The tables of a study.

`event` is the ledger: one row per change, never updated, each row chained to the one before it. The
other tables hold the present state, which follows from the ledger; they are written in the
transaction of their event.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

event = Table(
    "event",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),  # text, so that the hash is of what is stored
    Column("actor", String(40), nullable=False),
    Column("kind", String(24), nullable=False),
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("save_key", String(64), unique=True),
    Column("payload", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("kind", "subject", "version", name="one_event_per_version"),
)

# One row. Every append locks it first, which serializes the appends on every database.
ledger_head = Table(
    "ledger_head",
    metadata,
    Column("head_id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

account = Table(
    "account",
    metadata,
    Column("account_id", Integer, primary_key=True),
    Column("login", String(40), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("active", Boolean, nullable=False),
)

web_session = Table(
    "web_session",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("account_id", ForeignKey("account.account_id"), nullable=False, index=True),
    Column("expires_at", String(32), nullable=False),
)

secret = Table(
    "secret",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

image = Table(
    "image",
    metadata,
    Column("image_id", Text, primary_key=True),
    Column("position", Integer, nullable=False, unique=True),
    Column("batch", ForeignKey("event.sequence"), nullable=False),
    Column("image_path", Text, nullable=False),
    Column("patient_id", Text),
    Column("slide_id", Text, index=True),
    Column("stain", Text),
    Column("mpp", Float(53)),
    Column("x", Integer),
    Column("y", Integer),
    Column("width", Integer),
    Column("height", Integer),
    Column("region_id", Text, index=True),
    Column("others", Text, nullable=False),  # other columns of the manifest, as JSON
)

model_call = Table(
    "model_call",
    metadata,
    Column("image_id", ForeignKey("image.image_id"), primary_key=True),
    Column("label_id", Text, primary_key=True),
    # Digest of all rows of an import. The latest entry of the ledger names the one in use.
    Column("batch", String(64), primary_key=True),
    Column("probability", Float(53), nullable=False),
)

assignment = Table(
    "assignment",
    metadata,
    Column("assignment_id", Integer, primary_key=True),
    Column("batch", ForeignKey("event.sequence"), nullable=False),
    Column("account_id", ForeignKey("account.account_id"), nullable=False),
    Column("image_id", ForeignKey("image.image_id"), nullable=False, index=True),
    Column("purpose", String(8), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(8), nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("account_id", "position", name="one_item_per_place"),
    UniqueConstraint("account_id", "image_id", "purpose", name="one_reading_per_purpose"),
    Index("next_open_item", "account_id", "state", "position"),
)
