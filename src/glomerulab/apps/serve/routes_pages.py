"""The pages of a served model: crops, slides, the model card and the interface for programs."""

from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from glomerulab.apps.serve.service import CurrentService, Service
from glomerulab.apps.web.assets import Assets
from glomerulab.apps.web.language import LANGUAGE_COOKIE, language_of
from glomerulab.apps.web.security import NOTICE, content_policy
from glomerulab.errors import UnknownRecordError
from glomerulab.i18n.catalogue import (
    LANGUAGES,
    catalogue,
    language_name,
    localized,
    translate,
)
from glomerulab.reports.case.model_rows import card_rows
from glomerulab.reports.html import page_environment, script_json
from glomerulab.slides.files import SLIDE_SUFFIXES
from glomerulab.taxonomy import definition_of

router = APIRouter(include_in_schema=False)

ASSETS = Assets("glomerulab.apps.serve")
CROP_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Of slides that may be crops as well."""
COOKIE_S = 365 * 24 * 3600


@router.get("/")
async def crops(request: Request, service: CurrentService) -> HTMLResponse:
    """Show the page that predicts a crop."""
    return _page(request, service, "crops.html.j2")


@router.get("/slides")
async def slides(request: Request, service: CurrentService) -> HTMLResponse:
    """Show the page that predicts slides as jobs."""
    return _page(request, service, "slides.html.j2")


@router.get("/model")
async def model_card(request: Request, service: CurrentService) -> HTMLResponse:
    """Show the model card."""
    rows = card_rows(service.model.facts, language_of(request))
    return _page(request, service, "model.html.j2", rows=rows)


@router.get("/programs")
async def programs(request: Request, service: CurrentService) -> HTMLResponse:
    """Show the interface for programs."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    operations = [
        (method.upper(), path, one.get("description", one["summary"]), one.get("parameters", ()))
        for path, methods in paths.items()
        for method, one in methods.items()
    ]
    return _page(request, service, "programs.html.j2", operations=operations)


@router.get("/static/{name:path}")
async def static(name: str) -> Response:
    """Return a static file of the pages."""
    response = ASSETS.response(name)
    if response is None:
        raise UnknownRecordError("the page has no such file")
    return response


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("glomerulab.apps.serve")
    environment.globals["asset"] = ASSETS.url
    environment.filters["script_json"] = script_json
    return environment


def _page(request: Request, service: Service, template: str, **values: object) -> HTMLResponse:
    language = language_of(request)
    model = service.model
    facts = {
        "canDraw": model.overlays is not None,
        "takesSlides": service.slides is not None,
        "canDetect": service.detector is not None,
        "maxMib": service.limits.upload_bytes // 2**20,
        "slideSuffixes": sorted({*SLIDE_SUFFIXES} - CROP_SUFFIXES),
        "language": language,
        "guide": [
            {
                "key": "",
                "name": localized(label, "name", language),
                "text": definition_of(label, language),
                "picture": service.references.get(label.id, ""),
            }
            for label in model.facts.labels
        ],
        "translations": {**catalogue(language, "serve"), **catalogue(language, "viewer")},
    }
    content = (
        _environment()
        .get_template(template)
        .render(
            _=lambda text, **parts: translate(text, language, **parts),
            language=language,
            languages={code: language_name(code) for code in LANGUAGES},
            path=request.url.path,
            facts=model.facts,
            settings=facts,
            stains=tuple(model.facts.stains_seen),
            mpp=model.card.mpp,
            limits=service.limits,
            needs_key=service.needs_key,
            takes_slides=service.slides is not None,
            inbox=None if service.inbox is None else service.inbox.folder.name,
            notice=Markup.escape(translate(NOTICE, language)),
            **values,
        )
    )
    policy = content_policy(with_blobs=True)
    response = HTMLResponse(content, headers={"Content-Security-Policy": policy})
    if "language" in request.query_params:
        response.set_cookie(
            LANGUAGE_COOKIE, language, max_age=COOKIE_S, samesite="strict", httponly=True
        )
    return response
