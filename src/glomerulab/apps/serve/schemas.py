"""What answers look like: the part of this server that clients are written against."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glomerulab.apps.serve.auth import OPEN_PATHS
from glomerulab.apps.serve.job_records import JobProgress, JobRequest, JobResult, JobState
from glomerulab.apps.web.security import NOTICE
from glomerulab.cases.case_folder import ModelFacts
from glomerulab.cohort.schema import STAINS

__all__ = [
    "DESCRIPTION",
    "IMAGE_BODY",
    "CropResponse",
    "ErrorResponse",
    "Health",
    "Job",
    "JobList",
    "LabelResponse",
    "ModelResponse",
    "Mpp",
    "Overlay",
    "Readiness",
    "Reason",
    "Stain",
    "describe_keys",
    "error_responses",
]


def _known_stain(word: str) -> str:
    if word not in STAINS:
        raise ValueError(f"must be one of {', '.join(STAINS)}")
    return word


Stain = Annotated[
    str, AfterValidator(_known_stain), Field(json_schema_extra={"enum": list(STAINS)})
]
Mpp = Annotated[float, Field(ge=0.001, le=100, allow_inf_nan=False)]


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)

    research_use_only: str = NOTICE


class ErrorResponse(_Response):
    """Why a request was refused."""

    detail: str


class Health(_Response):
    """The server lives."""

    status: Literal["alive"] = "alive"


class Readiness(_Response):
    """Whether crops and jobs are being done."""

    status: Literal["ready", "not ready"]
    crops: bool
    jobs: bool | None
    """None: this server was started without a slides folder."""


class LabelResponse(BaseModel):
    """What was said of one label."""

    id: str
    name: str
    name_zh: str
    probability: float = Field(ge=0, le=1, description="Calibrated.")
    called: bool
    state: Literal["present", "absent", "either"] = Field(
        description="From the conformal set: whether it settles this label."
    )


class Reason(BaseModel):
    """Why a human must look."""

    word: str
    meaning: str


class Overlay(BaseModel):
    """Where the model found its answer."""

    label: str
    method: str
    png_base64: str = Field(description="The crop, and beside it the map, more salient brighter.")


class CropResponse(_Response):
    """What a model says of a crop: the same as `glomerulab predict`."""

    weights_sha256: str
    """Which model it was."""
    labels: tuple[LabelResponse, ...]
    called: tuple[str, ...]
    conformal_set: tuple[str, ...] = Field(description="Labels that cannot be ruled out.")
    coverage: float = Field(description="Share of such sets that hold the truth, as promised.")
    referred: bool
    reasons: tuple[Reason, ...]
    stain: str | None
    stain_status: str | None = Field(
        description="What became of the crop in normalisation; null where the run has no "
        "reference for its stain."
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
    notes: tuple[str, ...]
    intended_use: str = (
        "Research on crops of single glomeruli like those it was trained on, read by a pathologist."
    )
    not_for: str = "Diagnosis or treatment; any decision about a patient."


class Job(_Response):
    """A job as its client sees it."""

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


class JobList(_Response):
    """A client's jobs, the newest first."""

    jobs: tuple[Job, ...]


DESCRIPTION = (
    "A trained model of glomeruli over HTTP. Research use only: not a medical device, not for "
    "diagnosis. Crops are answered at once; slides of the server's slides folder become jobs."
)

MEANINGS = {
    401: "No API key, or one that is not known.",
    403: "Not allowed, such as a path that leads out of the slides folder.",
    404: "There is no such thing, or it is another client's.",
    408: "The body did not arrive in time.",
    409: "The job is not in a state in which this can be done.",
    413: "The body is too large.",
    422: "The request or the image cannot be understood.",
    429: "This client asks for too much at once; see Retry-After.",
    503: "The server is busy or not ready; see Retry-After.",
    507: "The server's disk is full or read-only.",
}

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/octet-stream")
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file itself. What it is, is told by content, not by its stated type.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES
        },
    }
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route.

    Returns
    -------
    dict
        For FastAPI's ``responses``.
    """
    return {
        status: {"model": ErrorResponse, "description": MEANINGS[status]} for status in statuses
    }


def describe_keys(app: FastAPI) -> None:
    """Say in an application's description that it needs an API key.

    Parameters
    ----------
    app : FastAPI
        With all its routes.
    """
    document = app.openapi()  # kept by the application, and given out as it is changed here
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for path in OPEN_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []
