"""Sessions of logged-in people, kept on the server so that they can be ended there.

Of a token only the hash is stored: who reads the database cannot log in with it.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from glomerulab.apps.annotation.records import Account
from glomerulab.apps.annotation.store.accounts import account_from, account_of
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.schema import account, secret, web_session

__all__ = ["close_session", "close_sessions", "open_session", "session_account", "signing_key"]

SIGNING_KEY = "signing_key"


def open_session(store: Store, *, login: str, lifetime: timedelta) -> str:
    """Begin a session, and clear away those of everyone that have expired.

    Parameters
    ----------
    store : Store
    login : str
        Of someone whose password was checked.
    lifetime : timedelta

    Returns
    -------
    str
        Token for the cookie, 43 characters; it is not stored and cannot be had again.
    """
    token = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    with store.writing() as connection:
        owner = account_of(connection, login)
        connection.execute(delete(web_session).where(web_session.c.expires_at < _text(now)))
        connection.execute(
            insert(web_session).values(
                token_hash=_hash(token),
                account_id=owner.account_id,
                expires_at=_text(now + lifetime),
            )
        )
    return token


def session_account(store: Store, token: str) -> Account | None:
    """Return whose session a token is, None if it expired, was ended, or never was."""
    with store.reading() as connection:
        row = (
            connection.execute(
                select(account)
                .join(web_session)
                .where(
                    web_session.c.token_hash == _hash(token),
                    web_session.c.expires_at >= _text(datetime.now(UTC)),
                    account.c.active,
                )
            )
            .mappings()
            .first()
        )
    return None if row is None else account_from(row)


def close_session(store: Store, token: str) -> None:
    """End one session; nothing happens if it has ended."""
    with store.writing() as connection:
        connection.execute(delete(web_session).where(web_session.c.token_hash == _hash(token)))


def close_sessions(store: Store, login: str) -> None:
    """End every session of an account."""
    with store.writing() as connection:
        owner = account_of(connection, login)
        connection.execute(delete(web_session).where(web_session.c.account_id == owner.account_id))


def signing_key(store: Store) -> bytes:
    """Return the key of this study for signing forms, 32 random bytes made at the first call."""
    mine = select(secret.c.value).where(secret.c.name == SIGNING_KEY)
    with store.reading() as connection:
        found = connection.scalar(mine)
    if found is None:
        with store.writing() as connection:
            found = connection.scalar(mine)
            if found is None:
                found = secrets.token_bytes(32)
                connection.execute(insert(secret).values(name=SIGNING_KEY, value=found))
    return bytes(found)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
