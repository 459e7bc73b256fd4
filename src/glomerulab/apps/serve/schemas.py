"""Response schemas and the OpenAPI description: the contract with clients."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glomerulab.apps.serve.auth import OPEN_PATHS
from glomerulab.apps.serve.job_records import JobProgress, JobRequest, JobResult, JobState
from glomerulab.apps.web.security import NOTICE
from glomerulab.cases.case_folder import DetectorFacts, ModelFacts
from glomerulab.cohort.schema import STAINS
from glomerulab.slides.scale import MAX_MPP, MIN_MPP


def _known_stain(stain: str) -> str:
    if stain not in STAINS:
        raise ValueError(f"must be one of {', '.join(STAINS)}")
    return stain


Stain = Annotated[
    str, AfterValidator(_known_stain), Field(json_schema_extra={"enum": list(STAINS)})
]
Mpp = Annotated[float, Field(ge=MIN_MPP, le=MAX_MPP, allow_inf_nan=False)]


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)

    research_use_only: str = NOTICE


class ErrorResponse(_Response):
    """Reason of a refusal."""

    detail: str


class Health(_Response):
    """Liveness."""

    status: Literal["alive"] = "alive"


class Readiness(_Response):
    """Whether crops and jobs are processed."""

    status: Literal["ready", "not ready"]
    crops: bool
    jobs: bool | None
    """None without a slides folder."""


class LabelResponse(BaseModel):
    """Prediction of one label."""

    id: str
    name: str
    name_zh: str
    probability: float = Field(ge=0, le=1, description="Calibrated.")
    called: bool
    state: Literal["present", "absent", "either"] = Field(
        description="State of the label in the conformal set."
    )


class Reason(BaseModel):
    """Reason to refer the crop to a person."""

    word: str
    meaning: str


class Overlay(BaseModel):
    """Saliency overlay."""

    label: str
    method: str
    png_base64: str = Field(
        description="The crop and, beside it, the map; brighter is more salient."
    )


class CropResponse(_Response):
    """Call of a crop, the same as from `glomerulab predict`."""

    weights_sha256: str
    """Identifies the model."""
    labels: tuple[LabelResponse, ...]
    assessed: bool = Field(
        description="False if the image has no tissue, is too small, or is too unlike the training "
        "images to be taken for a glomerulus; nothing is called then."
    )
    called: tuple[str, ...]
    conformal_set: tuple[str, ...] = Field(description="Labels above the threshold of the set.")
    coverage: float = Field(description="Nominal share of such sets that contain the truth.")
    referred: bool
    reasons: tuple[Reason, ...]
    scale_known: bool = Field(description="Whether the scale of the crop could be checked.")
    stain: str | None
    stain_status: str | None = Field(
        description="Status of the normalisation; null if the run has no reference for the stain."
    )
    distance: float
    distance_threshold: float
    sharpness: float
    sharpness_threshold: float
    overlay: Overlay | None
    notes: tuple[str, ...]


class ModelResponse(_Response):
    """The model card."""

    facts: ModelFacts
    input_size: int
    mpp: float | None
    """Of the training crops."""
    epochs: int
    engine: str
    can_draw_overlays: bool
    detector: DetectorFacts | None
    """Segmenter that outlines glomeruli for jobs with `detect`."""
    notes: tuple[str, ...]
    intended_use: str = (
        "Research on crops of single glomeruli like those it was trained on, read by a pathologist."
    )
    not_for: str = "Diagnosis or treatment; any decision about a patient."


class Job(_Response):
    """A job."""

    id: str
    state: JobState
    created: str
    started: str | None
    ended: str | None
    n_starts: int
    request: JobRequest
    progress: JobProgress | None
    outcome: JobResult | None
    error: str | None
    results: tuple[str, ...] = Field(description="Addresses to download from, once it is done.")


class SlideList(_Response):
    """Files of the slides folder that a job may name."""

    slides: tuple[str, ...]
    regions: tuple[str, ...] = Field(description="Region files, and folders of them.")


class JobList(_Response):
    """A client's jobs, the newest first."""

    jobs: tuple[Job, ...]


DESCRIPTION = (
    "A trained model of glomeruli over HTTP. Research use only: not a medical device, not for "
    "diagnosis. Crops are predicted in one request; slides of the server's folder become jobs."
)

MEANINGS = {
    401: "No API key, or one that is not known.",
    403: "Not allowed, such as a path that leads out of the slides folder.",
    404: "It does not exist, or belongs to another client.",
    408: "The body did not arrive in time.",
    409: "The job's state does not allow this.",
    413: "The body is too large.",
    422: "The request or the image is invalid.",
    429: "This client has too many requests or jobs; see Retry-After.",
    503: "The server is busy or not ready; see Retry-After.",
    507: "The server's disk is full or read-only.",
}

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/octet-stream")
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file. Its type is detected from its content.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES
        },
    }
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, for FastAPI's ``responses``."""
    return {
        status: {"model": ErrorResponse, "description": MEANINGS[status]} for status in statuses
    }


def describe_keys(app: FastAPI) -> None:
    """Add the API key to the OpenAPI description of an application with all its routes."""
    document = app.openapi()  # cached by the application
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for operation in document["paths"].get("/metrics", {}).values():
        for status, response in operation["responses"].items():
            if int(status) >= 400:  # errors are JSON also where the rest is text
                response["content"] = {"application/json": response["content"].pop("text/plain")}
    for path in OPEN_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []
