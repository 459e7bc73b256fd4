"""The review application: pages of cases, and the corrections made on them.

Every address begins with a secret drawn at each start, since other users of this computer can reach
the port.
"""

import secrets
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from glomerulab.apps.review.pages import PLAIN_POLICY, cases_page, message_page
from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.apps.web.error_handlers import install_error_handlers
from glomerulab.apps.web.security import NOTICE, SecurityMiddleware
from glomerulab.apps.web.server import LOCAL_HOSTS
from glomerulab.cases.corrections import (
    CorrectionConflictError,
    CorrectionRow,
    OutdatedCorrectionError,
)
from glomerulab.errors import GlomerulabError, OutputError, UnknownRecordError
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.reports.case.html import ReviewFacts, page_policy, render_case_html
from glomerulab.runtime.names import safe_name

MAX_BODY_BYTES = 64 * 1024
NO_ADDRESS = "This address is not, or no longer, valid: open the one that glomerulab review gives."
FRAMES = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

CACHE_DAY = {"Cache-Control": "private, max-age=86400, immutable"}

router = APIRouter()


class Change(BaseModel):
    """A correction sent by the page."""

    model_config = ConfigDict(extra="forbid")

    time: str = Field(max_length=40)
    by: str = Field(max_length=100)
    image_id: str
    labels: str
    reason: str = Field(max_length=500)
    place: str = Field(default="", pattern=r"^(-?\d{1,9} -?\d{1,9} [1-9]\d{0,8} [1-9]\d{0,8})?$")
    seen: int = Field(ge=0)

    @property
    def row(self) -> CorrectionRow:
        """The row of the corrections file."""
        by, reason = self.by.strip(), self.reason.strip()
        return CorrectionRow(self.time, by, self.image_id, self.labels, reason, self.place)


def create_app(session: ReviewSession, *, secret: str, language: Language) -> FastAPI:
    """Build the application of one predictions folder, which only this computer may reach."""
    app = FastAPI(
        title="glomerulab review (research use only)",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.session, app.state.secret, app.state.language = session, secret, language
    app.add_middleware(
        SecurityMiddleware, hosts=LOCAL_HOSTS, limit_of=lambda _scope: MAX_BODY_BYTES
    )
    install_error_handlers(app, known_error=_known_error, respond=_respond)
    app.get("/")(_without_secret)
    app.include_router(router, prefix="/{secret}", dependencies=[Depends(_check_secret)])
    return app


def _check_secret(secret: str, request: Request) -> None:
    """Refuse a request without the secret."""
    if not secrets.compare_digest(secret.encode(), request.app.state.secret.encode()):
        raise UnknownRecordError(translate(NO_ADDRESS, request.app.state.language))


def _without_secret(request: Request) -> None:
    _check_secret("", request)


def _session(request: Request) -> ReviewSession:
    session: ReviewSession = request.app.state.session
    return session


def _language(request: Request) -> Language:
    language: Language = request.app.state.language
    return language


CurrentSession = Annotated[ReviewSession, Depends(_session)]
CurrentLanguage = Annotated[Language, Depends(_language)]


@router.get("/")
def cases(session: CurrentSession, language: CurrentLanguage, request: Request) -> Response:
    """List the cases, or show the only one."""
    _state, found = session.cases()
    if len(found) == 1:
        path = request.url.path
        return RedirectResponse(f"{path}cases/{next(iter(found))}/", 303)
    return _page(cases_page(found, language), PLAIN_POLICY)


@router.get("/cases/{name}/")
def case(name: str, session: CurrentSession, language: CurrentLanguage) -> Response:
    """Show a case with its current counts."""
    state, one = session.case(name)
    facts = ReviewFacts(state, n_cases=len(session.cases()[1]))
    content = render_case_html(
        one, session.folder, language=language, review=facts, pictures=session.pictures
    )
    return _page(content, page_policy(facts))


@router.get("/pictures/{name}.jpg")
def picture(name: str, session: CurrentSession) -> Response:
    """Return a picture; its address changes with its file, so the browser keeps it."""
    return Response(session.files.read(name), media_type="image/jpeg", headers=CACHE_DAY)


@router.get("/cases/{name}/state")
def state(session: CurrentSession) -> dict[str, str]:
    """Return the current state, which a page compares with the one it shows."""
    return {"state": session.cases()[0], "research_use_only": NOTICE}


@router.post("/cases/{name}/changes")
def add(name: str, change: Change, session: CurrentSession) -> dict[str, Any]:
    """Add a correction of an image of the case; it is on disk when this returns."""
    n_seen = session.add(name, change.row, n_seen=change.seen)
    return {"seen": n_seen, "research_use_only": NOTICE}


@router.get("/cases/{name}/report.pdf")
def pdf(name: str, session: CurrentSession, language: CurrentLanguage) -> Response:
    """Return the PDF of a case with its current counts."""
    from glomerulab.reports.case.pdf import render_case_pdf

    _state, one = session.case(name)
    content = render_case_pdf(one, session.folder, language=language)
    headers = {"Content-Disposition": f'attachment; filename="{_ascii(one.patient)}.pdf"'}
    return Response(content, media_type="application/pdf", headers=headers)


def _ascii(patient: str) -> str:
    return safe_name(patient).encode("ascii", "replace").decode().replace("?", "_")


def _page(content: str, policy: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(content, status, headers={"Content-Security-Policy": policy + FRAMES})


def _known_error(request: Request, error: GlomerulabError) -> Response:
    if isinstance(error, CorrectionConflictError):
        current = None if error.latest is None else asdict(error.latest)
        return _json(409, error.message, current=current, seen=error.n_stored)
    if isinstance(error, OutdatedCorrectionError):
        return _json(422, error.message, why=error.why)
    kinds = ((UnknownRecordError, 404), (OutputError, 507))
    status = next((status for kind, status in kinds if isinstance(error, kind)), 422)
    # Only the user who started the program sees this, so `where` may be shown.
    return _respond(request, status, str(error))


def _json(status: int, message: str, **further: object) -> JSONResponse:
    return JSONResponse({"detail": message, **further, "research_use_only": NOTICE}, status)


def _respond(request: Request, status: int, message: str) -> Response:
    """Respond with a page to a browser, with JSON to the page's script."""
    if "text/html" in request.headers.get("accept", ""):
        language = request.app.state.language
        text = translate(NO_ADDRESS, language) if status == 404 else message
        return _page(message_page(text, language), PLAIN_POLICY, status)
    return _json(status, message)
