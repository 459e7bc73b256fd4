"""The page for people: drop a crop on it, see the call. It asks the same interface as programs."""

from functools import lru_cache

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response

from glomerulab.apps.serve.service import CurrentService
from glomerulab.apps.web.assets import Assets
from glomerulab.apps.web.notice import NOTICE
from glomerulab.apps.web.security import content_policy
from glomerulab.cohort.schema import STAINS
from glomerulab.errors import UnknownRecordError

__all__ = ["router"]

ASSETS = Assets("glomerulab.apps.serve")

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(service: CurrentService) -> HTMLResponse:
    """Show the page."""
    model = service.model
    content = (
        _environment()
        .get_template("page.html.j2")
        .render(
            facts=model.facts,
            stains=STAINS,
            needs_key=service.needs_key,
            can_draw=model.overlays is not None,
            max_mib=service.limits.upload_bytes // 2**20,
            notice=NOTICE,
        )
    )
    policy = content_policy(with_blobs=True)
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


@router.get("/static/{name:path}")
async def static(name: str) -> Response:
    """Give a file of the package by a name that is on its list."""
    answer = ASSETS.response(name)
    if answer is None:
        raise UnknownRecordError("there is no such file")
    return answer


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("glomerulab.apps.serve"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = ASSETS.url
    return environment
