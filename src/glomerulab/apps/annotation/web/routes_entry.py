"""The way in and out: log-in, set-up of a new study, language, own password."""

import hmac
import re
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from glomerulab.apps.annotation.records import Account, StudySettings
from glomerulab.apps.annotation.store.accounts import (
    check_password,
    create_account,
    list_accounts,
    set_password,
)
from glomerulab.apps.annotation.store.sessions import close_session
from glomerulab.apps.annotation.store.study import new_study
from glomerulab.apps.annotation.web.access import (
    CurrentAccount,
    CurrentSite,
    begin_session,
    client_address,
    end_session,
    entry_token,
    session_token,
)
from glomerulab.apps.annotation.web.pages import LANGUAGE_COOKIE, render_page
from glomerulab.apps.annotation.web.schemas import Credentials
from glomerulab.apps.annotation.web.site import Site
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.i18n.catalogue import LANGUAGES

__all__ = ["router"]

router = APIRouter()

Field = Annotated[str, Form(max_length=200)]
INSIDE = re.compile(r"/[A-Za-z0-9/_.-]*")
"""Where a log-in may lead on to: a page of this server."""


@router.get("/")
def home(account: CurrentAccount) -> Response:
    """Lead everyone to where their work is."""
    return RedirectResponse("/study" if account.role == "owner" else "/label", 303)


@router.get("/login")
def login_page(request: Request, site: CurrentSite, next: str = "/") -> Response:  # noqa: A002
    """Show the log-in form."""
    if site.needs_setup():
        return render_page(request, "wait.html.j2")
    return _entry_page(request, "login.html.j2", next=_inside(next), problem=None)


@router.post("/login")
def log_in(
    request: Request,
    site: CurrentSite,
    *,
    login: Field,
    password: Field,
    next: Field = "/",  # noqa: A002
) -> Response:
    """Check a password and open a session."""
    account = _checked(request, site, login, password)
    if account is None:
        problem = "The name or the password is wrong."
        page = _entry_page(request, "login.html.j2", next=_inside(next), problem=problem)
        page.status_code = 403
        return page
    answer = RedirectResponse(_inside(next), 303)
    begin_session(request, answer, account.login)
    return answer


@router.get("/api/entry")
def entry(request: Request) -> Response:
    """Give a page whose session has ended the token for logging in again."""
    carrier = Response()
    token = entry_token(request, carrier)
    return _with_cookies(JSONResponse({"csrf_token": token}), carrier)


@router.post("/api/session")
def log_in_again(request: Request, site: CurrentSite, given: Credentials) -> Response:
    """Log in without leaving the page, so that what waits to be saved can go on."""
    account = _checked(request, site, given.login, given.password)
    if account is None:
        raise NotAllowedError("the name or the password is wrong")
    carrier = Response()
    token = begin_session(request, carrier, account.login)
    known = {"csrf_token": token, "login": account.login}
    return _with_cookies(JSONResponse(known), carrier)


@router.post("/logout")
def log_out(request: Request, site: CurrentSite) -> Response:
    """End the session on the server, not only in the browser."""
    token = session_token(request)
    if token is not None:
        close_session(site.store, token)
    answer = RedirectResponse("/login", 303)
    end_session(answer)
    return answer


@router.post("/language")
def choose_language(
    language: Field,
    next: Field = "/",  # noqa: A002
) -> Response:
    """Remember the language."""
    answer = RedirectResponse(_inside(next), 303)
    if language in LANGUAGES:
        answer.set_cookie(
            LANGUAGE_COOKIE, language, max_age=365 * 86_400, httponly=True, samesite="strict"
        )
    return answer


@router.get("/account")
def account_page(request: Request, account: CurrentAccount, done: bool = False) -> Response:
    """Show who is logged in, and the form for another password."""
    return render_page(request, "account.html.j2", account=account, done=done, problem=None)


@router.post("/account")
def change_password(
    request: Request, site: CurrentSite, account: CurrentAccount, *, old: Field, new: Field
) -> Response:
    """Change the own password; every session of the account ends, and this page gets a new one."""
    if _checked(request, site, account.login, old) is None:
        raise NotAllowedError("the present password is wrong")
    set_password(site.store, login=account.login, password=new, by=account.login)
    answer = RedirectResponse("/account?done=true", 303)
    begin_session(request, answer, account.login)
    return answer


@router.get("/setup")
def setup_page(request: Request, site: CurrentSite, token: str = "") -> Response:
    """Show the form that makes the owner's account and the study."""
    _require_setup(site, token)
    return _entry_page(request, "setup.html.j2", token=token, problem=None)


@router.post("/setup")
def set_up(
    request: Request,
    site: CurrentSite,
    *,
    token: Field,
    name: Field,
    login: Field,
    password: Field,
    study: Field,
    n_readers: Annotated[int, Form(ge=1, le=100)],
    repeat_percent: Annotated[int, Form(ge=0, le=50)] = 10,
) -> Response:
    """Make the owner's account and the study, and log the owner in."""
    _require_setup(site, token)
    try:
        owner = _first_owner(request, site, Credentials(login=login, password=password), name)
        settings = StudySettings(study, n_readers, repeat_percent / 100)
        assert site.manifest is not None
        new_study(site.store, site.manifest, owner=owner.login, settings=settings)
    except AnnotationError as error:
        page = _entry_page(request, "setup.html.j2", token=token, problem=error.message)
        page.status_code = 422
        return page
    answer = RedirectResponse("/study/people", 303)
    begin_session(request, answer, owner.login)
    return answer


def _first_owner(request: Request, site: Site, given: Credentials, name: str) -> Account:
    """Make the first account, or take the one that an earlier, failed set-up made."""
    if not list_accounts(site.store):
        return create_account(
            site.store, login=given.login, name=name, role="owner", password=given.password, by=None
        )
    owner = _checked(request, site, given.login, given.password)
    if owner is None or owner.role != "owner":
        raise AnnotationError("there is an owner already: give that account's name and password")
    return owner


def _require_setup(site: Site, token: str) -> None:
    # Without the token from the terminal, whoever comes first could take the study.
    expected = site.setup_token
    if not expected or not hmac.compare_digest(token.encode(), expected.encode()):
        raise NotAllowedError("open the address that the terminal shows")
    if not site.needs_setup():
        raise NotAllowedError("the study is set up already: log in")


def _checked(request: Request, site: Site, login: str, password: str) -> Account | None:
    """Check a password, as often as the limits allow."""
    address = client_address(request)
    with site.limits.attempt(login, address):
        account = check_password(site.store, login=login, password=password)
    if account is None:
        site.limits.failed(login, address)
    else:
        site.limits.succeeded(login, address)
    return account


def _entry_page(request: Request, template: str, **values: str | None) -> Response:
    """Show a form that is posted without a session, with the token it needs."""
    carrier = Response()
    token = entry_token(request, carrier)
    page = render_page(request, template, status=200, entry=token, **values)
    return _with_cookies(page, carrier)


def _with_cookies(answer: Response, carrier: Response) -> Response:
    answer.raw_headers += [pair for pair in carrier.raw_headers if pair[0] == b"set-cookie"]
    return answer


def _inside(target: str) -> str:
    return target if INSIDE.fullmatch(target) and not target.startswith("//") else "/"
