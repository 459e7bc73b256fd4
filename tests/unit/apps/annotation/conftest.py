"""Stores to test on, each test on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from glomerulab.apps.annotation.store import accounts
from glomerulab.apps.annotation.store.database import Store, open_store
from tests.support.postgres import POSTGRES_URL, WITHOUT_POSTGRES, empty_schema


@pytest.fixture(autouse=True)
def _quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with argon2's least cost: a hundred tests need not each wait for a slow hash."""
    monkeypatch.setattr(
        accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a database can be made."""
    if request.param == "sqlite":
        yield str(tmp_path / "annotations.db")
        return
    if not POSTGRES_URL:
        pytest.skip(WITHOUT_POSTGRES)
    with empty_schema() as url:
        yield url


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    """Give an empty store."""
    with open_store(place, create=True) as opened:
        yield opened
