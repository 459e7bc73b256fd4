"""What monitoring, proxies and curious people ask: alive, ready, numbers, which model."""

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse

from glomerulab.apps.serve.metrics import METRICS_TYPE
from glomerulab.apps.serve.openapi import faults
from glomerulab.apps.serve.schemas import Health, ModelAnswer, Readiness
from glomerulab.apps.serve.service import CurrentService

__all__ = ["router"]

router = APIRouter()


@router.get("/health")
async def health() -> Health:
    """Say that the server lives."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "Not ready."}})
async def ready(service: CurrentService, response: Response) -> Readiness:
    """Say whether crops and jobs are being done; 503 if not."""
    crops = service.model.judge.is_alive
    jobs = None if service.jobs is None else service.jobs.is_alive
    is_ready = crops and jobs is not False
    if not is_ready:
        response.status_code = 503
    return Readiness(status="ready" if is_ready else "not ready", crops=crops, jobs=jobs)


@router.get("/metrics", response_class=PlainTextResponse, responses=faults(401, 429, 503))
def metrics(service: CurrentService) -> Response:
    """Give the numbers that Prometheus collects."""
    counts = {} if service.jobs is None else service.jobs.counts()
    return Response(service.metrics.text(counts), media_type=METRICS_TYPE)


@router.get("/v1/model", responses=faults(401, 429, 503))
async def model(service: CurrentService) -> ModelAnswer:
    """Show the model card."""
    loaded = service.model
    return ModelAnswer(
        facts=loaded.facts,
        input_size=loaded.card.input_size,
        mpp=loaded.card.mpp,
        epochs=loaded.card.epoch,
        engine=loaded.engine_name,
        can_draw_overlays=loaded.overlays is not None,
        notes=loaded.notes,
    )
