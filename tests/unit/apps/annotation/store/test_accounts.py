from datetime import timedelta

import pytest

from glomerulab.apps.annotation.store.accounts import (
    check_password,
    create_account,
    find_account,
    list_accounts,
    set_active,
    set_password,
)
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.sessions import open_session, session_account
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from tests.support.annotation_studies import OWNER, PASSWORD, add_account


@pytest.fixture
def peopled(store: Store) -> Store:
    add_account(store, OWNER, role="owner", by=None)
    add_account(store, "anna")
    return store


def test_the_first_account_is_an_owner_and_owners_make_the_others(store: Store) -> None:
    with pytest.raises(AnnotationError, match="must be an owner"):
        add_account(store, "anna", by=None)
    add_account(store, OWNER, role="owner", by=None)
    with pytest.raises(NotAllowedError, match="an owner makes the others"):
        add_account(store, "eve", role="owner", by=None)
    add_account(store, "anna")
    with pytest.raises(NotAllowedError, match="only an owner"):
        add_account(store, "bo", by="anna")
    assert [a.login for a in list_accounts(store)] == [OWNER, "anna"]


def test_a_login_is_one_whatever_its_case(peopled: Store) -> None:
    assert find_account(peopled, "ANNA").login == "anna"
    with pytest.raises(AnnotationError, match="taken"):
        add_account(peopled, "Anna")
    with pytest.raises(UnknownRecordError, match="zoe"):
        find_account(peopled, "zoe")


@pytest.mark.parametrize("login", ["", "a", "-anna", "an na", "anna/..", "ann\u00e4", "x" * 41])
def test_a_login_that_a_url_or_a_table_could_trip_over_is_refused(
    peopled: Store, login: str
) -> None:
    with pytest.raises(AnnotationError, match="login"):
        add_account(peopled, login)


def test_only_the_right_password_of_an_active_account_opens(peopled: Store) -> None:
    assert check_password(peopled, login="Anna", password=PASSWORD).name == "Anna"
    assert check_password(peopled, login="anna", password=PASSWORD + "!") is None
    assert check_password(peopled, login="nobody", password=PASSWORD) is None
    set_active(peopled, login="anna", active=False, by=OWNER)
    assert check_password(peopled, login="anna", password=PASSWORD) is None
    set_active(peopled, login="anna", active=True, by=OWNER)
    assert check_password(peopled, login="anna", password=PASSWORD) is not None


def test_no_password_is_readable_anywhere_in_the_database(peopled: Store) -> None:
    with peopled.reading() as connection:
        accounts = connection.exec_driver_sql("SELECT password_hash FROM account").all()
        events = connection.exec_driver_sql("SELECT payload FROM event").all()
    assert all(row[0].startswith("$argon2id$") for row in accounts)
    assert not any(PASSWORD in str(row) or "argon2" in row[0] for row in events)


def test_a_new_password_ends_the_sessions(peopled: Store) -> None:
    token = open_session(peopled, login="anna", lifetime=timedelta(hours=1))
    set_password(peopled, login="anna", password="another long password", by="anna")
    assert session_account(peopled, token) is None
    assert check_password(peopled, login="anna", password="another long password") is not None
    assert check_password(peopled, login="anna", password=PASSWORD) is None


def test_nobody_sets_the_password_of_another_but_an_owner(peopled: Store) -> None:
    add_account(peopled, "bo")
    with pytest.raises(NotAllowedError):
        set_password(peopled, login="anna", password="another long password", by="bo")
    set_password(peopled, login="anna", password="another long password", by=OWNER)


def test_the_last_owner_cannot_be_shut_out(peopled: Store) -> None:
    with pytest.raises(AnnotationError, match="only owner"):
        set_active(peopled, login=OWNER, active=False, by=OWNER)
    add_account(peopled, "second", role="owner")
    set_active(peopled, login=OWNER, active=False, by="second")
    with pytest.raises(NotAllowedError):
        add_account(peopled, "bo", by=OWNER)


def test_a_short_password_and_a_nameless_account_are_refused(peopled: Store) -> None:
    with pytest.raises(AnnotationError, match="10 to 256"):
        create_account(peopled, login="bo", name="Bo", role="annotator", password="short", by=OWNER)
    with pytest.raises(AnnotationError, match="needs a name"):
        create_account(peopled, login="bo", name=" ", role="annotator", password=PASSWORD, by=OWNER)
