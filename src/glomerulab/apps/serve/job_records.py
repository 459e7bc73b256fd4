"""Jobs on disk: one folder each, with a ``job.json`` that is replaced atomically.

Only the server writes ``job.json``; the process that does the work writes ``progress.json`` and, as
its last act, ``outcome.json``. What a killed server leaves is therefore always one of the states.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from glomerulab.errors import ConfigError, OutputError
from glomerulab.runtime.files import atomic_write, make_folder, private_opener, read_utf8
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.scale import MAX_MPP, MIN_MPP

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = frozenset({"done", "failed", "cancelled"})

Kept = TypeVar("Kept", bound=BaseModel)

JOB_FILE = "job.json"
PROGRESS_FILE = "progress.json"
OUTCOME_FILE = "outcome.json"

FIELDS = {
    "--mpp-override, or mpp in the slides table": "`mpp` of the slide",
    "--mpp-override": "`mpp` of the slide",
    "--margin": "`margin`",
    "--drawn-mpp": "`drawn_mpp`",
    "--ignore-bounds": "`ignore_bounds`",
    "--skip-class": "`skip_classes`",
    "--class": "`classes`",
    "--regions": "`regions`",
}
"""Names of command line options in a request."""


def with_field_names(text: str) -> str:
    """Replace command line options by the fields of a request."""
    for option, field in FIELDS.items():
        text = text.replace(option, field)
    return text


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlideRequest(_Stored):
    """One slide of a job."""

    path: str = Field(min_length=1, max_length=1024, description="Relative to the slides folder.")
    stain: str | None = Field(default=None, description="If the slide does not state it.")
    mpp: float | None = Field(
        default=None,
        ge=MIN_MPP,
        le=MAX_MPP,
        allow_inf_nan=False,
        description="Micrometres per pixel of level 0, if the slide does not state them.",
    )


SEVERAL_NEED_A_PATIENT: JsonDict = {
    "anyOf": [
        {"properties": {"slides": {"maxItems": 1}}},
        {"properties": {"patient": {"type": "string"}}, "required": ["patient"]},
    ]
}
REGIONS_OR_DETECT: JsonDict = {
    "anyOf": [
        {
            "properties": {"regions": {"type": "string"}, "detect": {"const": False}},
            "required": ["regions"],
        },
        {
            "properties": {"regions": {"type": "null"}, "detect": {"const": True}},
            "required": ["detect"],
        },
    ]
}


class JobRequest(_Stored):
    """A client's request: the slides of one case."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [SEVERAL_NEED_A_PATIENT, REGIONS_OR_DETECT]}
    )

    slides: tuple[SlideRequest, ...] = Field(min_length=1, max_length=32)
    regions: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="A region file, or a folder with one file named after each slide; relative to "
        "the slides folder, which is ``.`` itself.",
    )
    detect: bool = Field(
        default=False,
        description="Instead of regions: the server's segmenter outlines the glomeruli.",
    )
    patient: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Required for several slides, which form one case.",
    )
    margin: float = Field(
        default=0.1,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Margin around regions, as for the training crops.",
    )
    classes: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Take only regions of these classes, each `NAME` or `NAME=LABEL`.",
    )
    skip_classes: tuple[str, ...] = Field(
        default=(), max_length=100, description="Leave out regions of these classes."
    )
    ignore_bounds: bool = Field(
        default=False,
        description="GeoJSON counts from the slide's corner, not from openslide.bounds.",
    )
    drawn_mpp: float | None = Field(
        default=None,
        ge=0.001,
        le=1000,
        allow_inf_nan=False,
        description="Micrometres per pixel of the image that the regions were drawn on.",
    )
    language: Literal["en", "zh"] = Field(default="en", description="Of the HTML report.")

    def region_options(self) -> RegionOptions:
        """Return how the regions are read; a `ConfigError` if the options contradict each other."""
        try:
            return RegionOptions(
                self.classes, self.skip_classes, self.ignore_bounds, self.drawn_mpp
            )
        except ConfigError as error:
            raise ConfigError(with_field_names(error.message)) from error


class JobProgress(_Stored):
    """Progress of a running job."""

    stage: str
    done: int
    total: int | None


class JobResult(_Stored):
    """Outcome of a job's process."""

    error: str | None = None
    n_images: int = 0
    n_referred: int = 0
    n_failures: int = 0
    """Number of slides, regions and images without a prediction."""
    warnings: tuple[str, ...] = ()
    """Doubts about scales, regions and patients, as ``predict`` prints them."""


class JobRecord(_Stored):
    """One job."""

    format: Literal[1] = 1
    id: str
    client: str
    """Name of the client's API key."""
    request: JobRequest
    state: JobState = "queued"
    created: str
    started: str | None = None
    ended: str | None = None
    n_starts: int = 0
    """More than 1 if the server ended during the job."""
    error: str | None = None
    outcome: JobResult | None = None
    inbox_folder: str | None = None
    """Name of the folder of results of a slide that was put into the inbox."""

    @property
    def is_ended(self) -> bool:
        """Whether the job is done, failed or cancelled."""
        return self.state in ENDED


class JobFolder:
    """The folder of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def result(self) -> Path:
        """Folder of predictions and reports; incomplete until the job is done."""
        return self.path / "result"

    def write(self, record: JobRecord) -> None:
        """Replace ``job.json``."""
        self._write(JOB_FILE, record)

    def read(self) -> JobRecord | None:
        """Return the record; None if it is missing or unreadable."""
        return self._read(JOB_FILE, JobRecord)

    def write_progress(self, progress: JobProgress) -> None:
        """Replace ``progress.json``."""
        # Not flushed to disk: it is written often, and useless after a power cut.
        temporary = self.path / f".{PROGRESS_FILE}.new"
        with open(temporary, "w", encoding="utf-8", opener=private_opener) as file:
            file.write(progress.model_dump_json())
        temporary.replace(self.path / PROGRESS_FILE)

    def read_progress(self) -> JobProgress | None:
        """Return the progress; None before the work begins."""
        return self._read(PROGRESS_FILE, JobProgress)

    def write_outcome(self, outcome: JobResult) -> None:
        """Write ``outcome.json``, the last file of a job."""
        self._write(OUTCOME_FILE, outcome)

    def read_outcome(self) -> JobResult | None:
        """Return the outcome; None if the process did not write one."""
        return self._read(OUTCOME_FILE, JobResult)

    def delete_files(self) -> None:
        """Delete all but ``job.json``."""
        with suppress(FileNotFoundError):  # the job was deleted meanwhile
            for child in self.path.iterdir():
                if child.is_dir():
                    shutil.rmtree(child, ignore_errors=True)
                elif child.name != JOB_FILE:
                    child.unlink(missing_ok=True)

    def delete_record(self) -> None:
        """Delete ``job.json``: what is left is no job."""
        (self.path / JOB_FILE).unlink(missing_ok=True)

    def delete_outcome(self) -> None:
        """Delete the outcome of an earlier start."""
        (self.path / OUTCOME_FILE).unlink(missing_ok=True)

    def make(self) -> None:
        """Make the folder, readable by its owner only: it holds a patient's images."""
        make_folder(self.path)
        try:
            self.path.chmod(0o700)
        except OSError as error:
            raise OutputError(
                f"the job record cannot be written: {error.strerror}", where=str(self.path)
            ) from error

    def remove(self) -> None:
        """Delete the job and its results."""
        # The record first: a half-deleted folder is then no job.
        self.delete_record()
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, value: BaseModel) -> None:
        with atomic_write(self.path / name) as temporary:
            temporary.write_text(value.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _read(self, name: str, kind: type[Kept]) -> Kept | None:
        try:
            text = read_utf8(self.path / name, "job record", error=OutputError)
            return kind.model_validate_json(text)
        except (OutputError, ValidationError):
            return None
