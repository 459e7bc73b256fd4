"""Routes of slide jobs: start, show, cancel, delete, download."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from glomerulab.apps.serve.files import RESULTS, SlideFolder, find_result, result_file
from glomerulab.apps.serve.job_process import NO_DETECTOR
from glomerulab.apps.serve.job_records import JobRecord, JobRequest
from glomerulab.apps.serve.jobs import Jobs
from glomerulab.apps.serve.schemas import Job, JobList, SlideList, error_responses
from glomerulab.apps.serve.service import KNOWN_PARAMETERS, Client, CurrentService, Service
from glomerulab.cohort.schema import STAINS
from glomerulab.errors import ConfigError, UnknownRecordError
from glomerulab.slides.regions.features import RegionOptions

router = APIRouter(prefix="/v1/jobs", dependencies=[KNOWN_PARAMETERS])
slides_router = APIRouter(prefix="/v1/slides", dependencies=[KNOWN_PARAMETERS])

# Not validated: an id of another form is an unknown job, 404.
JobId = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-f]{16}$"})]


@slides_router.get("", responses=error_responses(401, 404, 429, 503))
def list_slides(service: CurrentService) -> SlideList:
    """List the slides and region files that jobs may name, at most 1000 of each."""
    _, folder = _jobs(service)
    slides, regions = folder.names()
    return SlideList(slides=tuple(slides), regions=tuple(regions))


@router.post(
    "", status_code=202, responses=error_responses(401, 403, 404, 408, 413, 422, 429, 503, 507)
)
def start_job(
    request: JobRequest, service: CurrentService, client: Client, response: Response
) -> Job:
    """Predict the slides of one case; `Location` is the address of the job."""
    jobs, slides = _jobs(service)
    _check(request, slides, service)
    record = jobs.add(request, client)
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return _job(jobs, record)


@router.get("", responses=error_responses(401, 404, 429, 503))
def list_jobs(service: CurrentService, client: Client) -> JobList:
    """List the jobs that this client started and those of the inbox, the newest first."""
    jobs, _ = _jobs(service)
    return JobList(jobs=tuple(_job(jobs, record) for record in jobs.of_client(client)))


@router.get("/{job_id}", responses=error_responses(401, 404, 422, 429, 503))
def show_job(job_id: JobId, service: CurrentService, client: Client) -> Job:
    """Show a job's progress or outcome."""
    jobs, _ = _jobs(service)
    return _job(jobs, jobs.get(job_id, client))


@router.post("/{job_id}/cancel", responses=error_responses(401, 404, 409, 422, 429, 503, 507))
def cancel_job(job_id: JobId, service: CurrentService, client: Client) -> Job:
    """Cancel a job that has not ended; its files are deleted."""
    jobs, _ = _jobs(service)
    return _job(jobs, jobs.cancel(job_id, client))


@router.delete(
    "/{job_id}", status_code=204, responses=error_responses(401, 404, 409, 422, 429, 503, 507)
)
def forget_job(job_id: JobId, service: CurrentService, client: Client) -> None:
    """Delete a job that has ended, and its result."""
    jobs, _ = _jobs(service)
    jobs.delete(job_id, client)


@router.get(
    "/{job_id}/result/{name}",
    response_class=FileResponse,
    responses=error_responses(401, 404, 409, 422, 429, 503)
    | {200: {"content": {kind: {} for kind in RESULTS.values()}, "description": "The file."}},
)
async def download(
    job_id: JobId,
    name: Literal["result.zip", "predictions.csv", "failures.csv", "case.json", "report.html"],
    service: CurrentService,
    client: Client,
) -> FileResponse:
    """Download a finished job's result: everything (`result.zip`), or one file."""
    jobs, _ = _jobs(service)
    record = jobs.get(job_id, client)
    path = await run_in_threadpool(result_file, jobs.result(record), name)
    return FileResponse(path, media_type=RESULTS[name], filename=f"{job_id}-{name}")


def _jobs(service: Service) -> tuple[Jobs, SlideFolder]:
    if service.jobs is None or service.slides is None:
        raise UnknownRecordError(
            "this server takes no slides; its operator can start it with --slides FOLDER"
        )
    return service.jobs, service.slides


def _check(request: JobRequest, slides: SlideFolder, service: Service) -> None:
    """Refuse a request that the job would fail for."""
    if len(request.slides) > 1 and request.patient is None:
        raise ConfigError("several slides form one case; give its `patient`")
    places = [slides.find(slide.path) for slide in request.slides]
    if len(set(places)) < len(places):
        raise ConfigError("the request names a slide twice")
    _check_regions(request, slides, service)
    for slide in request.slides:
        if slide.stain is not None and slide.stain not in STAINS:
            raise ConfigError(
                f"the stain of {slide.path} must be one of {', '.join(STAINS)}, got {slide.stain!r}"
            )
    if service.model.card.mpp is None:
        raise ConfigError(
            "the model does not state its micrometres per pixel, so slides cannot be cut for it"
        )


def _check_regions(request: JobRequest, slides: SlideFolder, service: Service) -> None:
    if (request.regions is None) != request.detect:
        raise ConfigError(
            "give `regions`, or `detect` to have the glomeruli outlined by the server, and not both"
        )
    options = request.region_options()
    if request.regions is not None:
        slides.find(request.regions)
    elif service.detector is None:
        raise ConfigError(NO_DETECTOR)
    elif options != RegionOptions():
        raise ConfigError(
            "`classes`, `skip_classes`, `ignore_bounds` and `drawn_mpp` say how regions are read; "
            "give `regions` with them"
        )


def _job(jobs: Jobs, record: JobRecord) -> Job:
    names: tuple[str, ...] = ()
    if record.state == "done":
        folder = jobs.result(record)
        names = tuple(name for name in RESULTS if find_result(folder, name))
    return Job(
        **record.model_dump(exclude={"format", "client", "request", "outcome", "inbox_folder"}),
        request=record.request,
        outcome=record.outcome,
        progress=jobs.progress(record),
        results=tuple(f"/v1/jobs/{record.id}/result/{name}" for name in names),
    )
