"""Routes of health, readiness, metrics and the model card."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from glomerulab.apps.serve.metrics import METRICS_TYPE
from glomerulab.apps.serve.schemas import Health, ModelResponse, Readiness, error_responses
from glomerulab.apps.serve.service import KNOWN_PARAMETERS, CurrentService

router = APIRouter()


@router.get("/health")
async def health() -> Health:
    """Report that the server is alive."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "Not ready."}})
async def ready(service: CurrentService, response: Response) -> Readiness:
    """Report whether crops and jobs are processed; 503 if not."""
    crops = service.model.predictor.is_alive
    jobs = None if service.jobs is None else service.jobs.is_alive
    if service.inbox is not None:
        jobs = jobs and service.inbox.is_alive
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
        detector=service.detector,
        notes=loaded.notes,
    )
