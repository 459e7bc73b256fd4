from datetime import timedelta

from glomerulab.apps.annotation.store.accounts import set_active
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.sessions import (
    close_session,
    close_sessions,
    open_session,
    session_account,
    signing_key,
)
from tests.support.annotation_studies import OWNER, add_account

HOUR = timedelta(hours=1)


def test_a_session_lasts_until_it_is_ended(store: Store) -> None:
    add_account(store, OWNER, role="owner", by=None)
    first, second = (open_session(store, login=OWNER, lifetime=HOUR) for _ in range(2))
    assert session_account(store, first).login == OWNER
    close_session(store, first)
    assert session_account(store, first) is None
    assert session_account(store, second).login == OWNER
    close_sessions(store, OWNER)
    assert session_account(store, second) is None


def test_a_session_expires_and_is_cleared_away(store: Store) -> None:
    add_account(store, OWNER, role="owner", by=None)
    old = open_session(store, login=OWNER, lifetime=timedelta(seconds=-1))
    assert session_account(store, old) is None
    open_session(store, login=OWNER, lifetime=HOUR)
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM web_session").scalar() == 1


def test_a_token_cannot_be_read_out_of_the_database(store: Store) -> None:
    add_account(store, OWNER, role="owner", by=None)
    token = open_session(store, login=OWNER, lifetime=HOUR)
    with store.reading() as connection:
        kept = connection.exec_driver_sql("SELECT token_hash FROM web_session").scalar()
    assert token not in kept
    assert session_account(store, kept) is None


def test_deactivation_ends_the_sessions(store: Store) -> None:
    add_account(store, OWNER, role="owner", by=None)
    add_account(store, "anna")
    token = open_session(store, login="anna", lifetime=HOUR)
    set_active(store, login="anna", active=False, by=OWNER)
    assert session_account(store, token) is None


def test_the_signing_key_is_the_same_for_every_process(store: Store, place: str) -> None:
    key = signing_key(store)
    assert len(key) == 32
    with open_store(place) as other:
        assert signing_key(other) == key
