"""Routes of health, readiness, metrics, the model card and the page."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from glomerulab.apps.serve.metrics import METRICS_TYPE
from glomerulab.apps.serve.schemas import Health, ModelResponse, Readiness, error_responses
from glomerulab.apps.serve.service import KNOWN_PARAMETERS, CurrentService
from glomerulab.apps.web.assets import Assets
from glomerulab.apps.web.security import NOTICE, content_policy
from glomerulab.cohort.schema import STAINS
from glomerulab.errors import UnknownRecordError
from glomerulab.reports.html import page_environment

router = APIRouter()

ASSETS = Assets("glomerulab.apps.serve")


@router.get("/health")
async def health() -> Health:
    """Report that the server is alive."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "Not ready."}})
async def ready(service: CurrentService, response: Response) -> Readiness:
    """Report whether crops and jobs are processed; 503 if not."""
    crops = service.model.predictor.is_alive
    jobs = None if service.jobs is None else service.jobs.is_alive
    is_ready = crops and jobs is not False
    if not is_ready:
        response.status_code = 503
    return Readiness(status="ready" if is_ready else "not ready", crops=crops, jobs=jobs)


@router.get("/metrics", response_class=PlainTextResponse, responses=error_responses(401, 429, 503))
def metrics(service: CurrentService) -> Response:
    """Return the Prometheus metrics."""
    counts = {} if service.jobs is None else service.jobs.counts()
    return Response(service.metrics.text(counts), media_type=METRICS_TYPE)


@router.get(
    "/v1/model", responses=error_responses(401, 422, 429, 503), dependencies=[KNOWN_PARAMETERS]
)
async def model(service: CurrentService) -> ModelResponse:
    """Show the model card."""
    loaded = service.model
    return ModelResponse(
        facts=loaded.facts,
        input_size=loaded.card.input_size,
        mpp=loaded.card.mpp,
        epochs=loaded.card.epoch,
        engine=loaded.engine_name,
        can_draw_overlays=loaded.overlays is not None,
        notes=loaded.notes,
    )


@router.get("/", include_in_schema=False)
async def page(service: CurrentService) -> HTMLResponse:
    """Show the page."""
    model = service.model
    content = (
        page_environment("glomerulab.apps.serve")
        .get_template("page.html.j2")
        .render(
            asset=ASSETS.url,
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


@router.get("/static/{name:path}", include_in_schema=False)
async def static(name: str) -> Response:
    """Return a static file of the page."""
    response = ASSETS.response(name)
    if response is None:
        raise UnknownRecordError("the page has no such file")
    return response
