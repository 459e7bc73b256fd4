"""A PostgreSQL for the tests: one schema per test, in the server of GLOMERULAB_POSTGRES_URL.

``bash runs/postgres.sh`` starts a private server and prints that variable.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

POSTGRES_URL = os.environ.get("GLOMERULAB_POSTGRES_URL", "")
WITHOUT_POSTGRES = "no PostgreSQL; set GLOMERULAB_POSTGRES_URL (bash runs/postgres.sh prints it)"


@contextmanager
def empty_schema() -> Iterator[str]:
    """Give the URL of a place in the server that nothing else uses; drop it at the end."""
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
        mark = "&" if "?" in POSTGRES_URL else "?"
        yield f"{POSTGRES_URL}{mark}options=-csearch_path%3D{name}"
        connection.execute(f'DROP SCHEMA "{name}" CASCADE')
