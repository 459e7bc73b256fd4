"""The folder that ``predict`` writes and ``report`` reads: a table of calls and facts about them.

``predictions.csv`` holds one row per image and is a valid predictions table with more columns;
``case.json`` describes model, slides and thresholds. This module knows no models or pixels.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glomerulab.cases.calls import NOT_ASSESSED, REASONS, GlomerulusCall
from glomerulab.cases.folder_record import (
    HARMLESS,
    Edit,
    FolderRecord,
    case_of,
    edit_text,
    find_edits,
    make_record,
    with_facts,
)
from glomerulab.cohort.schema import HALF_BOX, half_boxes
from glomerulab.errors import PredictionsError
from glomerulab.geometry import Box, Point
from glomerulab.i18n.catalogue import LANGUAGES, Language, translate
from glomerulab.predictions import Head, read_predictions, write_predictions
from glomerulab.runtime.files import StrPath, atomic_write, read_utf8
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.tables import BOX_COLUMNS
from glomerulab.slides.files import DicomReference
from glomerulab.taxonomy import Label, Taxonomy

__all__ = [
    "CASE_FILE",
    "PREDICTIONS_FILE",
    "CalibrationFacts",
    "CaseFacts",
    "CaseFolder",
    "DetectorFacts",
    "FailureFacts",
    "ModelFacts",
    "Note",
    "SlideFacts",
    "outline_text",
    "read_case_folder",
    "rewrite_facts",
    "write_case_folder",
]

CASE_FILE = "case.json"
PREDICTIONS_FILE = "predictions.csv"
STATES = ("present", "absent", "either")
HINT = "run `glomerulab predict` again, or correct the cell"


class _Facts(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )


class SlideFacts(_Facts):
    """One slide of the predictions."""

    slide_id: str
    file_name: str
    """Without its folder, whose name may identify a patient."""
    patient_id: str | None = None
    stain: str | None = None
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    """Of level 0, px."""
    mpp: float | None = None
    bounds_offset: tuple[float, float] = (0.0, 0.0)
    """Level-0 pixels minus QuPath's coordinates."""
    map_path: str | None = None
    """Overview picture of the slide, relative to the folder."""
    dicom: DicomReference | None = None
    """None where the slide is not DICOM."""


class CalibrationFacts(_Facts):
    """Temperature, thresholds and training images of a model, as fitted by ``glomerulab gates``."""

    weights_sha256: str
    """SHA-256 of the weights, which identifies the model."""
    temperature: float
    coverage: float
    """Nominal share of conformal sets that hold the truth."""
    conformal_threshold: float
    """Probability, before the temperature, from which a label belongs to the conformal set."""
    n_validation: int
    """Validation images that temperature and thresholds were fitted on."""
    distance_threshold: float
    """Distance in feature space above which an image is out of distribution."""
    sharpness_threshold: float
    n_training_images: int
    n_training_patients: int
    stains_seen: dict[str, int]
    """Training images by stain."""
    trained_on_synthetic: bool
    test_summary: str
    """Result on the held-out part of the run, in one sentence; empty without such a part."""
    test_summary_zh: str = ""


class ModelFacts(CalibrationFacts):
    """The model that made the predictions, and its calibration."""

    model: str
    head: Head
    taxonomy_name: str
    labels: tuple[Label, ...]
    run: str
    """Name of the run folder."""
    normalized_to: tuple[str, ...]
    """Stains whose images are normalised to the stain reference of the run."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels, in the order of every table."""
        return Taxonomy(self.taxonomy_name, self.labels)


class DetectorFacts(_Facts):
    """The detector that proposed regions."""

    run: str
    """Name of its run folder."""
    weights_sha256: str
    score_threshold: float
    test_summary: str
    """Performance on held-out patients, in one sentence; empty if there were none."""
    test_summary_zh: str = ""
    trained_on_synthetic: bool


class FailureFacts(_Facts):
    """A slide, region or image without a call."""

    case: str
    """Patient; the slide or image if the patient is not known."""
    slide_id: str
    name: str
    """Of the region or image; empty for the whole slide."""


class Note(_Facts):
    """A remark on how the predictions were made."""

    en: str
    zh: str = ""
    case: str | None = None
    """The only case whose report shows it, as `FailureFacts.case`; None: all of them. Required for
    a note that names a slide or an image."""

    @model_validator(mode="before")
    @classmethod
    def _from_english(cls, found: object) -> object:
        # Predictions made before notes had two languages hold the English sentence alone.
        return {"en": found} if isinstance(found, str) else found

    @classmethod
    def of(cls, text: str, *, case: str | None = None, **values: object) -> Self:
        """Make a note of an English text in the catalogue and what its braces hold."""
        english, chinese = (translate(text, language, **values) for language in LANGUAGES)
        return cls(en=english, zh=chinese, case=case)

    def text(self, language: Language) -> str:
        """Return the sentence in a language, or in English if it has no other."""
        text: str = getattr(self, language) or self.en
        return text


class CaseFacts(_Facts):
    """The content of ``case.json``."""

    format: Literal[1, 2] = 2
    """1: without `record`, of earlier versions."""
    created: str
    """UTC, ISO 8601."""
    glomerulab: str
    """Version of this package."""
    model: ModelFacts
    slides: tuple[SlideFacts, ...] = ()
    detector: DetectorFacts | None = None
    """Set if regions were proposed in this run."""
    failures: tuple[FailureFacts, ...] = Field(default=(), alias="unjudged")
    """Not counted; the reasons are in ``failures.csv``."""
    is_synthetic: bool
    """Whether any image was rendered by a program."""
    notes: tuple[Note, ...] = ()
    map_test: Literal["passed", "failed", "untested"] | None = None
    """Whether the saliency maps of the model passed their tests; None without maps."""
    region_options: dict[str, Any] | None = None
    """How the region files were read; None without any."""
    record: FolderRecord | None = None
    """What the folder held; `write_case_folder` makes it."""


@dataclass(frozen=True)
class CaseFolder:
    """A predictions folder."""

    folder: Path
    facts: CaseFacts
    calls: tuple[GlomerulusCall, ...]
    edits: tuple[Edit, ...] = ()
    """Changes since the folder was written, which a person accepted or that change no call."""
    accepts_edits: bool = False
    """Whether a person accepts changes, of corrections too."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels of the model."""
        return self.facts.model.taxonomy

    @property
    def head(self) -> Head:
        """The head of the model."""
        return self.facts.model.head

    def patients(self) -> dict[str, tuple[GlomerulusCall, ...]]:
        """Return the calls by case; a slide without a patient is a case of its own.

        A case with only failures, or with slides without regions, has no calls; nor has one whose
        rows were removed. One whose rows all have another patient now is none.
        """
        cases: dict[str, list[GlomerulusCall]] = {}
        for call in self.calls:
            cases.setdefault(case_of(call), []).append(call)
        for failure in self.facts.failures:
            cases.setdefault(failure.case, [])
        images = {call.image_id for call in self.calls}
        for edit in self.edits:
            has_moved = edit.kind == "missing" and images.issuperset(edit.names)
            if edit.case is not None and not has_moved:
                cases.setdefault(edit.case, [])
        called = {call.slide_id for call in self.calls}
        for slide in self.facts.slides:
            if slide.slide_id not in called:
                cases.setdefault(slide.patient_id or slide.slide_id, [])
        return {name: tuple(calls) for name, calls in cases.items()}


def write_case_folder(folder: Path, facts: CaseFacts, table: pd.DataFrame) -> None:
    """Write a table as `read_case_folder` describes it, then the facts, into an existing folder.

    Raises
    ------
    PredictionsError
        If `read_case_folder` would refuse the table; nothing is written then.
    """
    path = folder / PREDICTIONS_FILE
    with atomic_write(path) as temporary:
        write_predictions(table, temporary)
        calls = _read_calls(temporary, facts.model.taxonomy, facts.model.head, where=str(path))
        record = make_record(folder, temporary, calls, _json(facts), _maps(facts))
    _write_facts(folder, facts.model_copy(update={"format": 2, "record": record}))


def rewrite_facts(folder: Path, change: Callable[[str], str]) -> None:
    """Change texts of ``case.json``, whose record follows; the table stays as it is."""
    path = folder / CASE_FILE
    data = json.loads(change(read_utf8(path, CASE_FILE, error=PredictionsError)))
    facts = CaseFacts.model_validate(data)
    if facts.record is not None:
        facts = facts.model_copy(update={"record": with_facts(facts.record, _json(facts))})
    _write_facts(folder, facts)


def _write_facts(folder: Path, facts: CaseFacts) -> None:
    with atomic_write(folder / CASE_FILE) as temporary:
        temporary.write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _json(facts: CaseFacts) -> dict[str, Any]:
    """Return facts as the file of a new folder holds them, without the record."""
    data: dict[str, Any] = json.loads(facts.model_dump_json(exclude={"record"}))
    return data | {"format": 2}


def _maps(facts: CaseFacts) -> list[tuple[str, str]]:
    return [
        (one.patient_id or one.slide_id, one.map_path)
        for one in facts.slides
        if one.map_path is not None
    ]


def read_case_folder(folder: StrPath, *, accept_edits: bool = False) -> CaseFolder:
    """Read what ``predict`` wrote.

    Parameters
    ----------
    folder : Path
        Or one of the two files in it. Beside the columns of a predictions table, the table holds
        ``called_<id>`` (1 or 0) and ``state_<id>`` (present, absent, either) per label,
        ``reasons`` (keys of `glomerulab.cases.calls.REASONS` separated by blanks), ``region_id``,
        ``image_path``, ``x, y, width, height`` and ``outline`` (``x y, x y``), and optionally
        ``saliency_path`` and ``proposed`` (1: by a detector, not drawn by a person).
    accept_edits : bool, default False
        Read a folder that was changed since it was written; `CaseFolder.edits` says how.

    Raises
    ------
    PredictionsError
        If a file is missing or invalid, or is not as ``predict`` wrote it.
    """
    folder = Path(folder)
    if folder.name in {CASE_FILE, PREDICTIONS_FILE}:
        folder = folder.parent
    path = folder / CASE_FILE
    if not path.exists():
        raise PredictionsError(
            "this folder holds no case.json; give the folder that `glomerulab predict` wrote, or "
            "of a cohort that of one case, cases/NAME",
            where=str(folder),
        )
    text = read_utf8(path, CASE_FILE, error=PredictionsError)
    try:
        facts = CaseFacts.model_validate_json(text)
    except ValidationError as error:
        raise PredictionsError(first_problem(error), where=str(path)) from error
    if facts.format > 1 and facts.record is None:
        raise PredictionsError(
            "case.json lacks the record of its folder; run `glomerulab predict` again",
            where=str(path),
        )
    path = folder / PREDICTIONS_FILE
    calls = _read_calls(path, facts.model.taxonomy, facts.model.head, where=str(path))
    edits = find_edits(
        folder,
        path,
        calls,
        json.loads(text),
        _maps(facts),
        record=facts.record,
        model=facts.model,
    )
    if any(edit.kind not in HARMLESS for edit in edits) and not accept_edits:
        lines = {call.image_id: line for line, call in enumerate(calls, start=2)}
        raise PredictionsError(
            f"the predictions are not as `glomerulab predict` wrote them: "
            f"{edit_text(edits, lines)}. Run `glomerulab predict` again, and correct calls with "
            "`glomerulab override` or `glomerulab review`; --accept-edits uses the files as they "
            "are, and every report states it",
            where=str(path),
        )
    return CaseFolder(folder, facts, calls, edits, accept_edits)


def _read_calls(
    path: Path, taxonomy: Taxonomy, head: Head, *, where: str
) -> tuple[GlomerulusCall, ...]:
    table = read_predictions(path, taxonomy, head=head)
    _check_columns(table, taxonomy, where)
    for row in half_boxes(table):
        raise PredictionsError(HALF_BOX, where=f"{where}: line {row + 2}")
    return tuple(
        _call(
            {str(name): cell for name, cell in row.items()},
            taxonomy,
            head,
            f"{where}: line {place + 2}",
        )
        for place, row in enumerate(table.to_dict("records"))
    )


def _check_columns(table: pd.DataFrame, taxonomy: Taxonomy, where: str) -> None:
    wanted = ["slide_id", "patient_id", "reasons", "image_path"]
    wanted += [f"{kind}_{key}" for kind in ("called", "state") for key in taxonomy.label_ids]
    missing = [name for name in wanted if name not in table]
    if missing:
        raise PredictionsError(
            f"the table lacks the columns {', '.join(missing)}; give one that `glomerulab predict` "
            "wrote",
            where=where,
        )


def _call(row: dict[str, Any], taxonomy: Taxonomy, head: Head, where: str) -> GlomerulusCall:
    def text(name: str) -> str | None:
        value = row.get(name)
        return None if value is None or pd.isna(value) else str(value)

    states = {key: text(f"state_{key}") or "" for key in taxonomy.label_ids}
    for key, state in states.items():
        if state not in STATES:
            found = f"holds {state!r}" if state else "is empty"
            raise PredictionsError(
                f"state_{key} {found}; it must be one of {', '.join(STATES)}: {HINT}", where=where
            )
    reasons = tuple((text("reasons") or "").split())
    unknown = sorted({*reasons} - set(REASONS))
    if unknown:
        raise PredictionsError(
            f"reasons holds {unknown[0]!r}; it must be of {', '.join(REASONS)}: {HINT}", where=where
        )
    called = frozenset(
        key for key in taxonomy.label_ids if _flag(text(f"called_{key}"), f"called_{key}", where)
    )
    is_assessed = NOT_ASSESSED.isdisjoint(reasons)
    if head == "softmax" and len(called) != 1 and (called or is_assessed):
        raise PredictionsError(
            f"called_*: {len(called)} labels are 1, but this model calls exactly one of "
            f"{', '.join(taxonomy.label_ids)}: {HINT}",
            where=where,
        )
    try:
        box, outline = _box(row), _outline(text("outline"))
    except ValueError as error:
        raise PredictionsError(
            f"the place on the slide is invalid: {error}", where=where
        ) from error
    return GlomerulusCall(
        image_id=str(row["image_id"]),
        slide_id=text("slide_id") or "",
        patient_id=text("patient_id"),
        region_id=text("region_id"),
        stain=text("stain"),
        probabilities={key: float(row[f"probability_{key}"]) for key in taxonomy.label_ids},
        called=called if is_assessed else None,
        states=states,
        reasons=reasons,
        box=box,
        outline=outline,
        image_path=text("image_path"),
        saliency_path=text("saliency_path"),
        is_proposed="proposed" in row and _flag(text("proposed"), "proposed", where),
        source_id=text("source_id"),
        source_class=text("source_class"),
        distance=_measure(row, "distance", where),
        sharpness=_measure(row, "sharpness", where),
        mpp=_measure(row, "mpp", where),
    )


def _measure(row: dict[str, Any], column: str, where: str) -> float | None:
    """Read a number, NaN where it is not known; None without the column."""
    if column not in row:
        return None
    try:
        return math.nan if pd.isna(row[column]) else float(row[column])
    except (TypeError, ValueError) as error:
        raise PredictionsError(
            f"{column} holds {str(row[column])[:40]!r}; it must be a number: {HINT}", where=where
        ) from error


def _flag(cell: str | None, column: str, where: str) -> bool:
    """Read 1 or 0, which some programs write as 1.0 and 0.0."""
    if cell in {"1", "1.0"}:
        return True
    if cell in {"0", "0.0"}:
        return False
    found = "is empty" if cell is None else f"holds {cell!r}"
    raise PredictionsError(f"{column} {found}; it must be 1 or 0: {HINT}", where=where)


def _box(row: dict[str, Any]) -> Box | None:
    values = [row.get(name) for name in BOX_COLUMNS]
    if any(value is None or pd.isna(value) for value in values):
        return None
    x, y, width, height = (int(str(value)) for value in values)
    return Box(x, y, width, height)


def _outline(text: str | None) -> tuple[Point, ...]:
    if not text:
        return ()
    numbers = np.array([pair.split() for pair in text.split(",")], dtype=np.float64)
    if numbers.ndim != 2 or numbers.shape[1] != 2 or not np.isfinite(numbers).all():
        raise ValueError(f"outline holds {text[:40]!r}; it must be such as '1 2, 3.2 4, 5 6'")
    return tuple((float(x), float(y)) for x, y in numbers)


def outline_text(outline: Sequence[Point]) -> str:
    """Write an outline as the table holds it, in tenths of a pixel.

    Examples
    --------
    >>> outline_text([(1.0, 2.0), (3.25, 4.0)])
    '1 2, 3.2 4'
    """
    return ", ".join(f"{_tenths(x)} {_tenths(y)}" for x, y in outline)


def _tenths(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
