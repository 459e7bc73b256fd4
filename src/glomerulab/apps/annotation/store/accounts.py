"""Accounts, their passwords (argon2id) and the sessions of people who are logged in.

Of a session token only the hash is stored: whoever reads the database cannot log in with it.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from glomerulab.apps.annotation.records import Account, Role
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import append_event
from glomerulab.apps.annotation.store.schema import account, secret, web_session
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from glomerulab.runtime.names import plain_name

LOGIN_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{1,39}")
LOOK_ALIKES = (("0", "o"), ("1", "l"), ("rn", "m"), ("vv", "w"))
SIGNING_KEY = "signing_key"

MIN_PASSWORD_LENGTH = 10
MAX_PASSWORD_LENGTH = 256  # characters; hashing a longer one only costs the server time
HASHER = PasswordHasher()
# Verified when there is no such account, so that an unknown login takes as long as a known one.
DUMMY_HASH = (
    "$argon2id$v=19$m=65536,t=3,p=4$MDAwMDAwMDAwMDAwMDAwMA$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def create_account(
    store: Store, *, login: str, name: str, role: Role, password: str, by: str | None
) -> Account:
    """Create an account.

    Parameters
    ----------
    login : str
        2 to 40 letters, digits, dots, hyphens or underscores; case does not matter.
    password : str
        10 to 256 characters.
    by : str or None
        Login of the owner who creates it; None for the first account, which must be an owner's.

    Raises
    ------
    AnnotationError
        If the login is malformed, taken or easily taken for another, or the password too short or
        too long.
    NotAllowedError
        If `by` is not an owner, or None although there are accounts.
    """
    login, name = _checked_login(login), plain_name(name)
    if not name:
        raise AnnotationError(f"the account {login!r} needs a name")
    password_hash = hash_password(password)  # before the transaction: it takes long
    with store.writing() as connection:
        _check_creator(connection, role, by)
        _check_free(connection, login)
        connection.execute(
            insert(account).values(
                login=login, name=name, role=role, password_hash=password_hash, active=True
            )
        )
        return _record_account(connection, login, actor=by or login, password_changed=True)


def check_password(store: Store, *, login: str, password: str) -> Account | None:
    """Return the account if it is active and the password is right.

    Takes the same time whether the account exists or not.
    """
    with store.reading() as connection:
        row = _find_row(connection, login_key(login))
    matches = verify_password(password, None if row is None else row["password_hash"])
    if row is None or not matches or not row["active"]:
        return None
    if HASHER.check_needs_rehash(row["password_hash"]):
        with store.writing() as connection:
            connection.execute(
                update(account)
                .where(account.c.account_id == row["account_id"])
                .values(password_hash=hash_password(password))
            )
    return _account_from_row(row)


def find_account(store: Store, login: str) -> Account:
    """Return an account; case does not matter."""
    with store.reading() as connection:
        return get_account(connection, login)


def list_accounts(store: Store) -> list[Account]:
    """Return every account, in the order of creation."""
    with store.reading() as connection:
        rows = connection.execute(select(account).order_by(account.c.account_id)).mappings()
        return [_account_from_row(row) for row in rows]


def set_password(store: Store, *, login: str, password: str, by: str) -> Account:
    """Set the password of an account and end its sessions.

    Parameters
    ----------
    by : str
        The account itself, or an owner.
    """
    password_hash = hash_password(password)
    with store.writing() as connection:
        target = get_account(connection, login)
        if get_account(connection, by).login != target.login:
            require_owner(connection, by)
        values = {"password_hash": password_hash}
        return _update_account(connection, target, by, values=values, password_changed=True)


def set_active(store: Store, *, login: str, active: bool, by: str) -> Account:
    """Allow or forbid an account to log in; its annotations are kept and its sessions end.

    Raises
    ------
    AnnotationError
        If the study would be left without an owner who can log in.
    """
    with store.writing() as connection:
        require_owner(connection, by)
        target = get_account(connection, login)
        if target.role == "owner" and not active:
            n_owners = connection.scalar(
                select(func.count()).where(account.c.role == "owner", account.c.active)
            )
            if n_owners == 1:
                raise AnnotationError(
                    f"{login} is the only owner and cannot be deactivated; add another owner first"
                )
        values = {"active": active}
        return _update_account(connection, target, by, values=values, password_changed=False)


def get_account(connection: Connection, login: str) -> Account:
    """Return an account inside a transaction."""
    row = _find_row(connection, login_key(login))
    if row is None:
        raise UnknownRecordError(f"there is no account with the login {login!r}")
    return _account_from_row(row)


def require_owner(connection: Connection, login: str) -> Account:
    """Return the account if it is an active owner's, and raise `NotAllowedError` otherwise."""
    found = get_account(connection, login)
    if found.role != "owner" or not found.active:
        raise NotAllowedError(f"only an owner of the study may do this; {login} is not an owner")
    return found


def require_adjudicator(connection: Connection, login: str) -> Account:
    """Return the account if it may settle disagreements, and raise `NotAllowedError` otherwise."""
    found = get_account(connection, login)
    if found.role == "annotator" or not found.active:
        raise NotAllowedError(
            f"only an owner or adjudicator of the study may do this; {login} is neither"
        )
    return found


def hash_password(password: str) -> str:
    """Return the salted argon2id hash of a new password, with its parameters."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise AnnotationError(
            f"a password must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters, "
            f"this one has {len(password)}"
        )
    return HASHER.hash(password)


def verify_password(password: str, password_hash: str | None) -> bool:
    """Return whether a password matches a hash; takes the same time if there is no hash."""
    try:
        HASHER.verify(password_hash or DUMMY_HASH, password[: MAX_PASSWORD_LENGTH + 1])
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def open_session(store: Store, *, login: str, lifetime: timedelta) -> str:
    """Create a session, delete the expired ones, and return the token for the cookie.

    The token has 43 characters and is not stored.
    """
    token = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    with store.writing() as connection:
        owner = get_account(connection, login)
        connection.execute(delete(web_session).where(web_session.c.expires_at < _iso(now)))
        connection.execute(
            insert(web_session).values(
                token_hash=_token_hash(token),
                account_id=owner.account_id,
                expires_at=_iso(now + lifetime),
            )
        )
    return token


def session_account(store: Store, token: str) -> Account | None:
    """Return the account of a session token, None if it expired, was ended, or is unknown."""
    query = (
        select(account)
        .join(web_session)
        .where(
            web_session.c.token_hash == _token_hash(token),
            web_session.c.expires_at >= _iso(datetime.now(UTC)),
            account.c.active,
        )
    )
    with store.reading() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _account_from_row(row)


def close_session(store: Store, token: str) -> None:
    """End a session if there is one."""
    with store.writing() as connection:
        connection.execute(
            delete(web_session).where(web_session.c.token_hash == _token_hash(token))
        )


def signing_key(store: Store) -> bytes:
    """Return the key of this study for signing, 32 random bytes that the first call creates."""
    query = select(secret.c.value).where(secret.c.name == SIGNING_KEY)
    with store.reading() as connection:
        key = connection.scalar(query)
    if key is None:
        with store.writing() as connection:
            key = connection.scalar(query)
            if key is None:
                key = secrets.token_bytes(32)
                connection.execute(insert(secret).values(name=SIGNING_KEY, value=key))
    return bytes(key)


def login_key(login: str) -> str:
    """Return the form of a login in which it is created, looked up, counted and recorded.

    Blanks around it, case, invisible characters and the Unicode form do not count.
    """
    return plain_name(plain_name(login).casefold())


def _checked_login(login: str) -> str:
    folded = login_key(login)
    if not LOGIN_PATTERN.fullmatch(folded):
        raise AnnotationError(
            "a login has 2 to 40 characters: letters a-z, digits, dots, hyphens or underscores; "
            f"got {login!r}"
        )
    return folded


def _check_free(connection: Connection, login: str) -> None:
    looks = _look(login)
    for other in connection.scalars(select(account.c.login)):
        if other == login:
            raise AnnotationError(f"the login {login!r} is taken; choose another")
        if _look(other) == looks:
            raise AnnotationError(
                f"the login {login!r} looks like {other!r}, which is taken; choose another"
            )


def _look(login: str) -> str:
    """Return what logins have in common that are hard to tell apart in a list."""
    for one, other in LOOK_ALIKES:
        login = login.replace(one, other)
    return login


def _check_creator(connection: Connection, role: Role, by: str | None) -> None:
    if by is not None:
        require_owner(connection, by)
        return
    if connection.scalar(select(func.count()).select_from(account)):
        raise NotAllowedError("there are accounts already; ask an owner to add the others")
    if role != "owner":
        raise AnnotationError("the first account of a study must be an owner's")


def _update_account(
    connection: Connection,
    target: Account,
    by: str,
    *,
    values: dict[str, Any],
    password_changed: bool,
) -> Account:
    row = account.c.account_id == target.account_id
    connection.execute(update(account).where(row).values(**values))
    connection.execute(delete(web_session).where(web_session.c.account_id == target.account_id))
    actor = get_account(connection, by).login
    return _record_account(connection, target.login, actor=actor, password_changed=password_changed)


def _record_account(
    connection: Connection, login: str, *, actor: str, password_changed: bool
) -> Account:
    """Append the present state of an account, without its password, to the ledger."""
    current = get_account(connection, login)
    append_event(
        connection,
        kind="account",
        subject=login,
        actor=actor,
        payload={
            "name": current.name,
            "role": current.role,
            "active": current.active,
            "password_changed": password_changed,
        },
    )
    return current


def _find_row(connection: Connection, login: str) -> RowMapping | None:
    return connection.execute(select(account).where(account.c.login == login)).mappings().first()


def _account_from_row(row: RowMapping) -> Account:
    return Account(row["account_id"], row["login"], row["name"], row["role"], bool(row["active"]))


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
