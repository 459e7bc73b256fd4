from datetime import timedelta

import pytest
from argon2 import PasswordHasher, extract_parameters

from glomerulab.apps.annotation.store import accounts
from glomerulab.apps.annotation.store.accounts import (
    check_password,
    close_session,
    create_account,
    find_account,
    hash_password,
    list_accounts,
    login_key,
    open_session,
    session_account,
    set_active,
    set_password,
    signing_key,
    verify_password,
)
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.ledger import iterate_events
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from tests.support.annotation_studies import OWNER, PASSWORD, add_account


@pytest.fixture
def peopled(store: Store) -> Store:
    add_account(store, OWNER, role="owner", by=None)
    add_account(store, "anna")
    return store


def test_the_first_account_is_an_owner_and_owners_make_the_others(store: Store) -> None:
    with pytest.raises(AnnotationError, match="first account"):
        add_account(store, "anna", by=None)
    add_account(store, OWNER, role="owner", by=None)
    with pytest.raises(NotAllowedError):
        add_account(store, "eve", role="owner", by=None)
    add_account(store, "anna")
    with pytest.raises(NotAllowedError, match="anna"):
        add_account(store, "bo", by="anna")
    assert [a.login for a in list_accounts(store)] == [OWNER, "anna"]


def test_logins_ignore_case(peopled: Store) -> None:
    assert find_account(peopled, "ANNA").login == "anna"
    with pytest.raises(AnnotationError, match="anna"):
        add_account(peopled, "Anna")
    with pytest.raises(UnknownRecordError, match="zoe"):
        find_account(peopled, "zoe")


VARIANTS = (
    " anna",
    "anna\u3000",
    "\u2003anna\u00a0",
    "a\u200bn\u00adna",
    "\ufeffANNA",
    "\uff41nna",
    "a\u2060nna\x00",
    "\u202eanna",
    "ann\u00aa",
    "an\u3164na",
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_login_that_looks_the_same_is_the_same(peopled: Store, variant: str) -> None:
    assert login_key(variant) == "anna"
    assert find_account(peopled, variant).login == "anna"
    assert check_password(peopled, login=variant, password=PASSWORD).login == "anna"
    with pytest.raises(AnnotationError, match="anna"):
        add_account(peopled, variant)
    set_password(peopled, login=variant, password=PASSWORD, by=variant)
    assert {one.actor for one in iterate_events(peopled)} == {OWNER, "anna"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("readero", "reader0"), ("l.berg", "1.berg"), ("bernd", "bemd"), ("vvest", "west")],
)
def test_no_two_logins_look_alike(peopled: Store, one: str, other: str) -> None:
    add_account(peopled, one)
    with pytest.raises(AnnotationError, match="looks like"):
        add_account(peopled, other)
    assert [a.login for a in list_accounts(peopled)] == [OWNER, "anna", one]


@pytest.mark.parametrize("login", ["\u0430nna", "\u217aanna", "\u0251nna"])
def test_letters_of_another_script_are_no_login(peopled: Store, login: str) -> None:
    if login_key(login).isascii():  # such as a Roman numeral, which is written in letters
        assert login_key(login) != "anna"
    else:
        with pytest.raises(AnnotationError, match="login"):
            add_account(peopled, login)


def test_a_name_is_stored_as_it_is_seen(peopled: Store) -> None:
    made = create_account(
        peopled,
        login="bo",
        name=" Bo\u200b \u3000 Li\u202e\x00",
        role="annotator",
        password=PASSWORD,
        by=OWNER,
    )
    assert made.name == "Bo Li"
    with pytest.raises(AnnotationError, match="name"):
        create_account(
            peopled, login="cy", name="\u200b\u3164 ", role="annotator", password=PASSWORD, by=OWNER
        )


@pytest.mark.parametrize("login", ["", "a", "-anna", "an na", "anna/..", "ann\u00e4", "x" * 41])
def test_a_login_that_is_unsafe_in_a_url_or_a_table_is_rejected(peopled: Store, login: str) -> None:
    with pytest.raises(AnnotationError, match="login"):
        add_account(peopled, login)


def test_only_the_right_password_of_an_active_account_is_accepted(peopled: Store) -> None:
    assert check_password(peopled, login="Anna", password=PASSWORD).name == "Anna"
    assert check_password(peopled, login="anna", password=PASSWORD + "!") is None
    assert check_password(peopled, login="unknown", password=PASSWORD) is None
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


def test_only_the_account_itself_or_an_owner_sets_a_password(peopled: Store) -> None:
    add_account(peopled, "bo")
    with pytest.raises(NotAllowedError):
        set_password(peopled, login="anna", password="another long password", by="bo")
    set_password(peopled, login="anna", password="another long password", by=OWNER)


def test_the_last_owner_cannot_be_deactivated(peopled: Store) -> None:
    with pytest.raises(AnnotationError, match=OWNER):
        set_active(peopled, login=OWNER, active=False, by=OWNER)
    add_account(peopled, "second", role="owner")
    set_active(peopled, login=OWNER, active=False, by="second")
    with pytest.raises(NotAllowedError):
        add_account(peopled, "bo", by=OWNER)


def test_a_short_password_and_an_empty_account_name_are_rejected(peopled: Store) -> None:
    with pytest.raises(AnnotationError, match="this one has 5"):
        create_account(peopled, login="bo", name="Bo", role="annotator", password="short", by=OWNER)
    with pytest.raises(AnnotationError, match="bo"):
        create_account(peopled, login="bo", name=" ", role="annotator", password=PASSWORD, by=OWNER)


@pytest.fixture
def real_hasher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with the parameters of the program instead of the quick ones of the tests."""
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher())


def test_a_hash_matches_its_password_alone_and_is_salted() -> None:
    first, second = hash_password("correct horse"), hash_password("correct horse")
    assert first != second
    assert verify_password("correct horse", first)
    assert not verify_password("correct horsf", first)
    assert not verify_password("correct horse", None)
    assert not verify_password("correct horse", "no hash at all")


@pytest.mark.usefixtures("real_hasher")
def test_an_unknown_account_costs_as_much_work_as_a_known_one() -> None:
    assert extract_parameters(accounts.DUMMY_HASH) == extract_parameters(
        hash_password("correct horse")
    )


def test_a_password_has_a_least_and_a_greatest_length() -> None:
    for wrong in ("x" * 9, "x" * 257):
        with pytest.raises(AnnotationError, match=f"this one has {len(wrong)}"):
            hash_password(wrong)
    assert verify_password("x" * 256, hash_password("x" * 256))
    assert not verify_password("x" * 300, hash_password("x" * 256))


def test_a_log_in_replaces_a_hash_of_weaker_parameters(
    peopled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored_hash() -> str:
        with peopled.reading() as connection:
            query = "SELECT password_hash FROM account WHERE login = 'anna'"
            return str(connection.exec_driver_sql(query).scalar())

    weak = stored_hash()
    assert check_password(peopled, login="anna", password=PASSWORD) is not None
    assert stored_hash() == weak
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    monkeypatch.setattr(accounts, "HASHER", stronger)
    assert check_password(peopled, login="anna", password=PASSWORD) is not None
    assert extract_parameters(stored_hash()).time_cost == 2


HOUR = timedelta(hours=1)


def test_a_session_lasts_until_it_is_ended(store: Store) -> None:
    add_account(store, OWNER, role="owner", by=None)
    first, second = (open_session(store, login=OWNER, lifetime=HOUR) for _ in range(2))
    assert session_account(store, first).login == OWNER
    close_session(store, first)
    assert session_account(store, first) is None
    assert session_account(store, second).login == OWNER


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
