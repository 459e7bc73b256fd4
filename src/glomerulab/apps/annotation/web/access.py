"""Who is asking: session cookies, the token every write must bring, and roles.

The cookie holds a random token of the store, signed and dated, so that forged and old ones are
refused before the database is asked; the store can revoke it. A write must also bring a token that
only a page of this server can know.
"""

import hmac
import secrets
from typing import Annotated

from fastapi import Depends, Request, Response
from itsdangerous import BadSignature

from glomerulab.apps.annotation.records import Account
from glomerulab.apps.annotation.store.sessions import open_session, session_account
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.security import SAFE_METHODS
from glomerulab.errors import NotAllowedError

__all__ = [
    "CSRF_HEADER",
    "ENTRY_COOKIE",
    "SESSION_COOKIE",
    "CurrentAccount",
    "CurrentSite",
    "NotLoggedInError",
    "OutOfDateError",
    "Owner",
    "begin_session",
    "client_address",
    "csrf_token",
    "end_session",
    "entry_token",
    "protected_write",
    "session_token",
    "site_of",
]

SESSION_COOKIE = "glomerulab_session"
ENTRY_COOKIE = "glomerulab_entry"
"""Before there is a session: what the log-in form's token is bound to."""
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"
ENTRY_PATHS = frozenset({"/login", "/api/session", "/setup", "/language"})
"""Where a log-in form's token counts although there is a session: anybody can have such a token."""
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class OutOfDateError(NotAllowedError):
    """A write brought no token of this session, such as one of a page opened before it."""


class NotLoggedInError(Exception):
    """There is no session, or it has ended."""


def site_of(request: Request) -> Site:
    """Return what the requests of this server share."""
    site: Site = request.app.state.site
    return site


async def _site(request: Request) -> Site:
    # Async although it waits for nothing: a plain function would be handed to a thread.
    return site_of(request)


CurrentSite = Annotated[Site, Depends(_site)]


def session_token(request: Request) -> str | None:
    """Return the session token of the cookie if this server signed it and it is not too old."""
    site = site_of(request)
    signed = request.cookies.get(SESSION_COOKIE, "")
    try:
        lifetime = int(site.settings.session_lifetime.total_seconds())
        return site.session_signer.unsign(signed, max_age=lifetime).decode()
    except (BadSignature, UnicodeDecodeError):
        return None


def _current_account(request: Request, site: CurrentSite) -> Account:
    token = session_token(request)
    account = None if token is None else session_account(site.store, token)
    if account is None:
        raise NotLoggedInError
    return account


CurrentAccount = Annotated[Account, Depends(_current_account)]


async def _owner(account: CurrentAccount) -> Account:
    if account.role != "owner":
        raise NotAllowedError("only the study's owner may do or see this")
    return account


Owner = Annotated[Account, Depends(_owner)]


def begin_session(request: Request, response: Response, login: str) -> str:
    """Open a session, put its cookie on the answer, and return the token for its writes.

    Parameters
    ----------
    request : Request
    response : Response
    login : str
        Whose password has just been checked.

    Returns
    -------
    str
        The CSRF token of the new session.
    """
    site = site_of(request)
    lifetime = site.settings.session_lifetime
    token = open_session(site.store, login=login, lifetime=lifetime)
    signed = site.session_signer.sign(token).decode()
    _set_cookie(request, response, SESSION_COOKIE, signed, int(lifetime.total_seconds()))
    response.delete_cookie(ENTRY_COOKIE)
    return _csrf_of(site, token)


def end_session(response: Response) -> None:
    """Take the cookie back."""
    response.delete_cookie(SESSION_COOKIE)


def entry_token(request: Request, response: Response) -> str:
    """Return the token for a form that is shown before there is a session.

    Parameters
    ----------
    request : Request
    response : Response
        Gets the cookie that the token is bound to.

    Returns
    -------
    str
    """
    bound_to = request.cookies.get(ENTRY_COOKIE) or secrets.token_urlsafe(24)
    _set_cookie(request, response, ENTRY_COOKIE, bound_to, 3600)
    return _csrf_of(site_of(request), bound_to)


def csrf_token(request: Request) -> str:
    """Return the token that this session's writes must bring; empty without a session."""
    token = session_token(request)
    return "" if token is None else _csrf_of(site_of(request), token)


async def protected_write(request: Request) -> None:
    """Refuse a write that does not bring the token of its session or log-in form.

    Parameters
    ----------
    request : Request

    Raises
    ------
    NotLoggedInError
        If there is neither a session nor a log-in form it could belong to.
    OutOfDateError
        If the token is missing or another's.
    """
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(FORM_TYPES):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    site = site_of(request)
    bounds = [session_token(request)]
    if bounds == [None] or request.url.path in ENTRY_PATHS:
        bounds.append(request.cookies.get(ENTRY_COOKIE))
    expected = [_csrf_of(site, bound_to).encode() for bound_to in bounds if bound_to]
    if not expected:
        raise NotLoggedInError
    if not any(hmac.compare_digest((given or "").encode(), one) for one in expected):
        raise OutOfDateError("this page is out of date: reload it and try again")


def client_address(request: Request) -> str:
    """Return where a request comes from, for the log-in limits."""
    return request.client.host if request.client else "unknown"


def _csrf_of(site: Site, bound_to: str) -> str:
    return site.csrf_signer.get_signature(bound_to).decode()


def _set_cookie(request: Request, response: Response, name: str, value: str, max_age: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
