"""Who may log in, and as what."""

import re
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from glomerulab.apps.annotation.passwords import hash_password, needs_new_hash, password_fits
from glomerulab.apps.annotation.records import Account, Role
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import append, newest_event
from glomerulab.apps.annotation.store.schema import account, web_session
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError

__all__ = [
    "account_from",
    "account_of",
    "check_password",
    "create_account",
    "find_account",
    "list_accounts",
    "require_owner",
    "set_active",
    "set_password",
]

LOGIN_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{1,39}")


def create_account(
    store: Store, *, login: str, name: str, role: Role, password: str, by: str | None
) -> Account:
    """Make an account.

    Parameters
    ----------
    store : Store
    login : str
        Two to forty letters, digits, dots, hyphens or underscores; case does not matter.
    name : str
        As people know the person.
    role : {"annotator", "owner"}
    password : str
    by : str or None
        Login of the owner who makes it; None for the first account, which must be an owner.

    Returns
    -------
    Account

    Raises
    ------
    AnnotationError
        If the login is taken or malformed, or the password too short.
    NotAllowedError
        If `by` is no owner, or None although there are accounts.
    """
    login = _checked_login(login)
    if not name.strip():
        raise AnnotationError("an account needs a name", where=login)
    password_hash = hash_password(password)  # before the transaction: it takes long
    with store.writing() as connection:
        _check_maker(connection, role, by)
        if _row(connection, login) is not None:
            raise AnnotationError("this login is taken", where=login)
        connection.execute(
            insert(account).values(
                login=login, name=name.strip(), role=role, password_hash=password_hash, active=True
            )
        )
        return _record(connection, login, actor=by or login, password_changed=True)


def check_password(store: Store, *, login: str, password: str) -> Account | None:
    """Return the account if the password is right, in the same time whether it exists or not.

    Parameters
    ----------
    store : Store
    login, password : str

    Returns
    -------
    Account or None
        None if the login is unknown, the password wrong, or the account not active.
    """
    with store.reading() as connection:
        row = _row(connection, login.strip().casefold())
    fits = password_fits(password, None if row is None else row["password_hash"])
    if row is None or not fits or not row["active"]:
        return None
    if needs_new_hash(row["password_hash"]):
        with store.writing() as connection:
            connection.execute(
                update(account)
                .where(account.c.account_id == row["account_id"])
                .values(password_hash=hash_password(password))
            )
    return account_from(row)


def find_account(store: Store, login: str) -> Account:
    """Return an account.

    Parameters
    ----------
    store : Store
    login : str
        Case does not matter.

    Returns
    -------
    Account

    Raises
    ------
    UnknownRecordError
        If there is none.
    """
    with store.reading() as connection:
        return account_of(connection, login)


def list_accounts(store: Store) -> list[Account]:
    """Return every account, in the order they were made."""
    with store.reading() as connection:
        rows = connection.execute(select(account).order_by(account.c.account_id)).mappings()
        return [account_from(row) for row in rows]


def set_password(store: Store, *, login: str, password: str, by: str) -> Account:
    """Give an account another password and end its sessions.

    Parameters
    ----------
    store : Store
    login : str
    password : str
    by : str
        The person themselves, or an owner.

    Returns
    -------
    Account

    Raises
    ------
    NotAllowedError
        If `by` is neither.
    """
    password_hash = hash_password(password)
    with store.writing() as connection:
        changed = account_of(connection, login)
        if account_of(connection, by).login != changed.login:
            require_owner(connection, by)
        return _change(
            connection, changed, by, values={"password_hash": password_hash}, password_changed=True
        )


def set_active(store: Store, *, login: str, active: bool, by: str) -> Account:
    """Let an account log in or not; its annotations stay in either case.

    Parameters
    ----------
    store : Store
    login : str
    active : bool
        False ends its sessions.
    by : str
        An owner.

    Returns
    -------
    Account

    Raises
    ------
    AnnotationError
        If that would leave the study without an owner who can log in.
    """
    with store.writing() as connection:
        require_owner(connection, by)
        changed = account_of(connection, login)
        if changed.role == "owner" and not active:
            n_owners = connection.scalar(
                select(func.count()).where(account.c.role == "owner", account.c.active)
            )
            if n_owners == 1:
                raise AnnotationError("is the only owner; make another one first", where=login)
        return _change(connection, changed, by, values={"active": active}, password_changed=False)


def account_of(connection: Connection, login: str) -> Account:
    """Return an account inside a transaction.

    Parameters
    ----------
    connection : Connection
    login : str

    Returns
    -------
    Account

    Raises
    ------
    UnknownRecordError
        If there is none.
    """
    row = _row(connection, login.strip().casefold())
    if row is None:
        raise UnknownRecordError("there is no such account", where=login)
    return account_from(row)


def require_owner(connection: Connection, login: str) -> Account:
    """Return the account of an owner.

    Parameters
    ----------
    connection : Connection
    login : str

    Returns
    -------
    Account

    Raises
    ------
    NotAllowedError
        If it is not an owner's, or no longer active.
    """
    found = account_of(connection, login)
    if found.role != "owner" or not found.active:
        raise NotAllowedError("only an owner of the study may do this", where=login)
    return found


def _checked_login(login: str) -> str:
    folded = login.strip().casefold()
    if not LOGIN_PATTERN.fullmatch(folded):
        raise AnnotationError(
            "a login is 2 to 40 letters a-z, digits, dots, hyphens or underscores", where=login
        )
    return folded


def _check_maker(connection: Connection, role: Role, by: str | None) -> None:
    if by is not None:
        require_owner(connection, by)
        return
    if connection.scalar(select(func.count()).select_from(account)):
        raise NotAllowedError("there are accounts already; an owner makes the others")
    if role != "owner":
        raise AnnotationError("the first account must be an owner's")


def _change(
    connection: Connection,
    changed: Account,
    by: str,
    *,
    values: dict[str, Any],
    password_changed: bool,
) -> Account:
    mine = account.c.account_id == changed.account_id
    connection.execute(update(account).where(mine).values(**values))
    connection.execute(delete(web_session).where(web_session.c.account_id == changed.account_id))
    actor = account_of(connection, by).login
    return _record(connection, changed.login, actor=actor, password_changed=password_changed)


def _record(connection: Connection, login: str, *, actor: str, password_changed: bool) -> Account:
    """Enter the account as it now stands in the ledger, without its password."""
    now = account_of(connection, login)
    before = newest_event(connection, "account", login)
    append(
        connection,
        kind="account",
        subject=login,
        version=1 if before is None else before.version + 1,
        actor=actor,
        payload={
            "name": now.name,
            "role": now.role,
            "active": now.active,
            "password_changed": password_changed,
        },
    )
    return now


def _row(connection: Connection, login: str) -> RowMapping | None:
    return connection.execute(select(account).where(account.c.login == login)).mappings().first()


def account_from(row: RowMapping) -> Account:
    """Make an `Account` of its row."""
    return Account(row["account_id"], row["login"], row["name"], row["role"], bool(row["active"]))
