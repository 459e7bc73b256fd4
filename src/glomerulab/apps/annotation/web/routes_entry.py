"""Pages before and around a session: log-in, set-up of a new study, language, own password."""

import hmac
import re
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from glomerulab.apps.annotation.records import Account, Role, StudySettings
from glomerulab.apps.annotation.store.accounts import (
    check_password,
    close_session,
    create_account,
    list_accounts,
    set_password,
)
from glomerulab.apps.annotation.store.study import create_study
from glomerulab.apps.annotation.web.access import (
    LOGIN_QUEUE,
    SESSION_COOKIE,
    CurrentAccount,
    CurrentSite,
    client_address,
    login_form_token,
    session_token,
    start_session,
)
from glomerulab.apps.annotation.web.pages import localized_message, render_page
from glomerulab.apps.annotation.web.schemas import Credentials, FormField, FormText
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.language import LANGUAGE_COOKIE
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.i18n.catalogue import LANGUAGES

router = APIRouter()

LOCAL_PATH = re.compile(r"/[A-Za-z0-9/_.-]*")
"""Where a log-in may redirect to: a page of this server."""
HOMES: dict[Role, str] = {
    "owner": "/study",
    "adjudicator": "/study/disagreements",
    "annotator": "/label",
}
WRONG_PASSWORD = "the name or the password is wrong"  # noqa: S105 - a message


@router.get("/")
def home(account: CurrentAccount) -> Response:
    """Redirect to the page on which the work of the account begins."""
    return RedirectResponse(HOMES[account.role], 303)


@router.get("/login")
def login_page(request: Request, site: CurrentSite, next: str = "/") -> Response:  # noqa: A002
    """Show the log-in form."""
    if site.needs_setup():
        return render_page(request, "not_set_up.html.j2")
    return _form_page(request, "login.html.j2", next=_local_path(next), problem=None)


@router.post("/login", dependencies=[LOGIN_QUEUE])
def log_in(
    request: Request,
    site: CurrentSite,
    *,
    login: FormField,
    password: FormField,
    next: FormText = "/",  # noqa: A002
) -> Response:
    """Check a password and open a session."""
    account = _authenticate(request, site, login, password)
    if account is None:
        values = {"next": _local_path(next), "problem": WRONG_PASSWORD}
        return _form_page(request, "login.html.j2", status=403, **values)
    response = RedirectResponse(_local_path(next), 303)
    start_session(request, response, account.login)
    return response


@router.get("/api/entry")
def entry(request: Request) -> Response:
    """Return the token of a log-in form to a page whose session has ended."""
    cookies = Response()
    token = login_form_token(request, cookies)
    return _with_cookies(JSONResponse({"csrf_token": token}), cookies)


@router.post("/api/session", dependencies=[LOGIN_QUEUE])
def log_in_again(request: Request, site: CurrentSite, given: Credentials) -> Response:
    """Log in without leaving the page, so that its unsaved work can be sent."""
    account = _authenticate(request, site, given.login, given.password)
    if account is None:
        raise NotAllowedError(WRONG_PASSWORD)
    cookies = Response()
    token = start_session(request, cookies, account.login)
    content = {"csrf_token": token, "login": account.login}
    return _with_cookies(JSONResponse(content), cookies)


@router.post("/logout")
def log_out(request: Request, site: CurrentSite) -> Response:
    """End the session on the server, not only in the browser."""
    token = session_token(request)
    if token is not None:
        close_session(site.store, token)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.post("/language")
def choose_language(
    language: FormField,
    next: FormText = "/",  # noqa: A002
) -> Response:
    """Store the language in a cookie."""
    response = RedirectResponse(_local_path(next), 303)
    if language in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE, language, max_age=365 * 86_400, httponly=True, samesite="strict"
        )
    return response


@router.get("/account")
def account_page(request: Request, account: CurrentAccount, done: bool = False) -> Response:
    """Show the account and the form for another password."""
    return render_page(request, "account.html.j2", account=account, done=done)


@router.post("/account", dependencies=[LOGIN_QUEUE])
def change_password(
    request: Request, site: CurrentSite, account: CurrentAccount, *, old: FormField, new: FormField
) -> Response:
    """Change the own password; every session of the account ends, and this page gets a new one."""
    if _authenticate(request, site, account.login, old) is None:
        raise NotAllowedError("the present password is wrong")
    set_password(site.store, login=account.login, password=new, by=account.login)
    response = RedirectResponse("/account?done=true", 303)
    start_session(request, response, account.login)
    return response


@router.get("/setup")
def setup_page(request: Request, site: CurrentSite, token: str = "") -> Response:
    """Show the form that creates the owner's account and the study."""
    _require_setup(site, token)
    return _form_page(request, "setup.html.j2", token=token, problem=None)


@router.post("/setup", dependencies=[LOGIN_QUEUE])
def set_up(
    request: Request,
    site: CurrentSite,
    *,
    token: FormField,
    name: FormField,
    login: FormField,
    password: FormField,
    study: FormField,
    n_readers: Annotated[int, Form(ge=1, le=100)],
    repeat_percent: Annotated[int, Form(ge=0, le=50)] = 10,
) -> Response:
    """Create the owner's account and the study, and log the owner in."""
    _require_setup(site, token)
    try:
        owner = _first_owner(request, site, Credentials(login=login, password=password), name)
        settings = StudySettings(study, n_readers, repeat_percent / 100)
        assert site.manifest is not None
        create_study(site.store, site.manifest, owner=owner.login, settings=settings)
    except AnnotationError as error:
        values = {"token": token, "problem": error.message}
        return _form_page(request, "setup.html.j2", status=422, **values)
    response = RedirectResponse("/study/people", 303)
    start_session(request, response, owner.login)
    return response


def _first_owner(request: Request, site: Site, given: Credentials, name: str) -> Account:
    """Create the first account, or use the one that an earlier, failed set-up created."""
    if not list_accounts(site.store):
        return create_account(
            site.store, login=given.login, name=name, role="owner", password=given.password, by=None
        )
    owner = _authenticate(request, site, given.login, given.password)
    if owner is None or owner.role != "owner":
        raise AnnotationError("there is an owner already; give that account's name and password")
    return owner


def _require_setup(site: Site, token: str) -> None:
    # Without the token from the terminal, the first visitor could take over the study.
    expected = site.setup_token
    if not expected or not hmac.compare_digest(token.encode(), expected.encode()):
        raise NotAllowedError(
            "the token of this address is wrong; open the address that the terminal shows"
        )
    if not site.needs_setup():
        raise NotAllowedError("the study is set up already; log in")


def _authenticate(request: Request, site: Site, login: str, password: str) -> Account | None:
    """Check a password, as often as the limits allow."""
    address = client_address(request)
    with site.login_limits.attempt(login, address):
        account = check_password(site.store, login=login, password=password)
        if account is None:
            site.login_limits.record_failure(login, address)
    if account is not None:
        site.login_limits.reset(login, address)
    return account


def _form_page(
    request: Request, template: str, *, status: int = 200, **values: str | None
) -> Response:
    """Render a form that is posted without a session, with the token it needs."""
    cookies = Response()
    token = login_form_token(request, cookies)
    problem = values.get("problem")
    if problem is not None:
        values["problem"] = localized_message(request, problem)
    page = render_page(request, template, status=status, form_token=token, **values)
    return _with_cookies(page, cookies)


def _with_cookies(response: Response, cookies: Response) -> Response:
    response.raw_headers += [pair for pair in cookies.raw_headers if pair[0] == b"set-cookie"]
    return response


def _local_path(target: str) -> str:
    return target if LOCAL_PATH.fullmatch(target) and not target.startswith("//") else "/"
