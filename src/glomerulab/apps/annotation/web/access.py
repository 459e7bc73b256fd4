"""Authenticate requests: session cookies, the CSRF token of every write, and roles.

The cookie holds a random token of the store, signed and dated, so that forged and old cookies are
rejected before the database is read; the store can revoke it. A write must also bring a token that
only a page of this server can contain.
"""

import hmac
from collections.abc import AsyncIterator, Mapping
from secrets import token_hex, token_urlsafe
from typing import Annotated

from fastapi import Depends, Request, Response
from itsdangerous import BadSignature

from glomerulab.apps.annotation.records import Account
from glomerulab.apps.annotation.store.accounts import open_session, session_account
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.security import SAFE_METHODS
from glomerulab.errors import NotAllowedError

SESSION_COOKIE = "glomerulab_session"
LOGIN_FORM_COOKIE = "glomerulab_entry_"
"""Before there is a session: begins the names of the secrets that log-in forms are bound to.

Each secret has a name of its own: two tabs that ask at once do not replace each other's.
"""
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"
LOGIN_FORM_PATHS = frozenset({"/login", "/api/session", "/setup", "/language"})
"""Paths that accept the token of a log-in form, which any visitor can get, during a session."""
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class StaleTokenError(NotAllowedError):
    """A write without the token of this session, as from a page that was opened before it."""


class NotLoggedInError(Exception):
    """There is no session, or it has ended."""


def get_site(request: Request) -> Site:
    """Return the state shared by the requests of this server."""
    site: Site = request.app.state.site
    return site


async def _site(request: Request) -> Site:
    # Async although it awaits nothing: a plain function would run in a thread.
    return get_site(request)


CurrentSite = Annotated[Site, Depends(_site)]


def session_token(request: Request) -> str | None:
    """Return the session token of the cookie if this server signed it and it is not too old."""
    return signed_token(get_site(request), request.cookies)


def signed_token(site: Site, cookies: Mapping[str, str]) -> str | None:
    """Return the session token of some cookies, as `session_token`."""
    signed = cookies.get(SESSION_COOKIE, "")
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
        raise NotAllowedError("only an owner of the study may do or see this; log in as one")
    return account


Owner = Annotated[Account, Depends(_owner)]


async def _adjudicator(account: CurrentAccount) -> Account:
    if account.role == "annotator":
        raise NotAllowedError(
            "only an owner or adjudicator of the study may do or see this; log in as one"
        )
    return account


Adjudicator = Annotated[Account, Depends(_adjudicator)]
"""An owner is one too."""


async def _login_queue(site: CurrentSite) -> AsyncIterator[None]:
    # Password checks wait here, in the event loop, and leave the threads to the others.
    async with site.login_queue:
        yield


LOGIN_QUEUE = Depends(_login_queue)
"""For every route that checks a password."""


def start_session(request: Request, response: Response, login: str) -> str:
    """Open a session for a checked login, set its cookie, and return its CSRF token."""
    site = get_site(request)
    lifetime = site.settings.session_lifetime
    token = open_session(site.store, login=login, lifetime=lifetime)
    signed = site.session_signer.sign(token).decode()
    _set_cookie(request, response, SESSION_COOKIE, signed, int(lifetime.total_seconds()))
    for name in _login_form_secrets(request):
        response.delete_cookie(name)
    return _csrf_token(site, token)


def login_form_token(request: Request, response: Response) -> str:
    """Return the CSRF token of a form without a session, and set the cookie it is bound to."""
    known = sorted(_login_form_secrets(request).items())
    name, secret = known[0] if known else (LOGIN_FORM_COOKIE + token_hex(4), token_urlsafe(24))
    _set_cookie(request, response, name, secret, 3600)
    return _csrf_token(get_site(request), secret)


def _login_form_secrets(request: Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.cookies.items()
        if name.startswith(LOGIN_FORM_COOKIE) and value
    }


def csrf_token(request: Request) -> str:
    """Return the token that this session's writes must bring; empty without a session."""
    token = session_token(request)
    return "" if token is None else _csrf_token(get_site(request), token)


async def check_csrf_token(request: Request) -> None:
    """Reject a write that does not bring the token of its session or log-in form."""
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(FORM_TYPES):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    site = get_site(request)
    bound = [session_token(request)]
    if bound == [None] or request.url.path in LOGIN_FORM_PATHS:
        bound += _login_form_secrets(request).values()
    expected = [_csrf_token(site, secret).encode() for secret in bound if secret]
    if not expected:
        raise NotLoggedInError
    if not any(hmac.compare_digest((given or "").encode(), one) for one in expected):
        raise StaleTokenError("this page is out of date; reload it and try again")


def client_address(request: Request) -> str:
    """Return the address of the client, for the log-in limits."""
    return request.client.host if request.client else "unknown"


def _csrf_token(site: Site, secret: str) -> str:
    return site.csrf_signer.get_signature(secret).decode()


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
