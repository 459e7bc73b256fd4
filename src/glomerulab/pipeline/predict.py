"""Apply a trained model to slides with regions, or to a manifest of crops, and write a case folder.

Each step continues an earlier run: existing crops, normalised crops and predictions are kept.
Training is never imported.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from glomerulab.cases.case_folder import (
    CaseFacts,
    FailureFacts,
    ModelFacts,
    Note,
    write_case_folder,
)
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import CheckpointError, ConfigError, OutputError, PredictionsError
from glomerulab.i18n.catalogue import translate
from glomerulab.inference.calibration import ModelCalibration, model_facts
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.image_predictions import predict_images
from glomerulab.inference.model import TrainedModel, load_model
from glomerulab.inference.segmenter import check_no_old_detector
from glomerulab.inference.tta import TTA_MARK, TtaEngine
from glomerulab.pipeline.cohort_folder import COHORT_FILE
from glomerulab.pipeline.crop_folder import write_failures
from glomerulab.pipeline.crop_plan import Failure
from glomerulab.pipeline.extract import NEEDS_REGIONS
from glomerulab.pipeline.normalize import NormalizedCohort, normalize_manifest
from glomerulab.pipeline.normalize_records import OTHER_TARGET
from glomerulab.pipeline.predict_inputs import (
    PredictionInputs,
    PredictSettings,
    Source,
    read_inputs,
    read_source,
)
from glomerulab.pipeline.predict_table import (
    case_table,
    check_has_gradients,
    likeliest_labels,
    write_saliency,
)
from glomerulab.reports.run.explanations import Verdict, read_map_test
from glomerulab.runtime.files import StrPath, make_folder, new_folder, remove_partial_files
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, open_model_folder
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.stain.fitting import StainStatus

__all__ = ["PredictSettings", "PredictSummary", "predict"]

NORMALIZED_FOLDER = "normalized-each"
FAILURES_FILE = "failures.csv"


@dataclass(frozen=True)
class PredictSummary:
    """Counts of a run, and what could not be classified."""

    folder: Path
    n_images: int
    n_referred: int
    """Images that a person must look at."""
    failures: tuple[Failure, ...]
    n_proposed: int = 0
    """Images of regions that a detector proposed."""
    n_without_stain: int = 0
    """Images without a stated stain, each of which is referred for that alone."""
    region_lines: tuple[str, ...] = ()
    """What the user must know of the regions."""
    stain_notes: tuple[str, ...] = ()
    """Sentences on crops that were normalised before, look like another stain or lack a target."""


def predict(
    source: StrPath,
    run: StrPath,
    out: StrPath,
    *,
    settings: PredictSettings | None = None,
    fingerprint: str | None = None,
    track: Track = silent,
) -> PredictSummary:
    """Apply a trained model.

    Parameters
    ----------
    source : Path
        A slide, a folder of slides, a slides table (CSV with ``slide_path``), or a manifest of
        crops (``image_path``).
    run : Path
        A run folder, or an exported one. Its calibration is fitted on first use if its images still
        exist.
    out : Path
        Gets ``predictions.csv``, ``case.json``, ``failures.csv`` and the crops.
    fingerprint : str, optional
        Of the model that is expected, see `TrainedModel.fingerprint`.

    Returns
    -------
    PredictSummary
        With every slide, region and image that could not be classified.

    Raises
    ------
    CheckpointError
        If the model cannot be read, is not the one expected, or its calibration belongs to another.
    RunError
        If a file of the model is not the one that was sealed.
    PredictionsError
        If no image could be classified, unless a slide was read that holds no region.
    GlomerulabError
        If the source is missing, or `out` holds crops of other settings.
    """
    source, run, out = Path(source), Path(run), Path(out)
    settings = settings or PredictSettings()
    files = open_model_folder(run)
    check_options(run, settings)
    model = load_model(files, track=track)
    if fingerprint not in {None, model.fingerprint}:
        raise CheckpointError(
            "the model in this folder is not the one that the server loaded; restart the server",
            where=str(run),
        )
    if (out / COHORT_FILE).exists():
        raise OutputError(
            "this folder holds a cohort; choose another --out, or predict with --cohort",
            where=str(out),
        )
    with new_folder(out):
        remove_partial_files(out)
        found = read_source(source, model.card, settings)
        return predict_source(found, files, out, model, settings=settings, track=track)


def predict_source(
    source: Source,
    files: SealedFolder,
    out: Path,
    model: TrainedModel,
    *,
    settings: PredictSettings,
    created: str | None = None,
    track: Track = silent,
) -> PredictSummary:
    """Apply a model to a manifest or slides that were read; `out` exists.

    `created` is the time that ``case.json`` states, by default now.
    """
    engine, calibration = model.engine, model.calibration
    inputs = read_inputs(source, engine.card, out, settings=settings, track=track)
    images, notes = _normalized(inputs.manifest, calibration, out, settings, track)
    predictions, unreadable = predict_images(
        images,
        TtaEngine(engine) if settings.symmetries else engine,
        calibration,
        out,
        fingerprint=calibration.fingerprint + (f"-{TTA_MARK}" if settings.symmetries else ""),
        n_workers=settings.processes(len(images.table)),
        track=track,
    )
    failures = (*inputs.failures, *(Failure("", key, text) for key, text in unreadable.items()))
    write_failures(out / FAILURES_FILE, failures, region_column="region_or_image")
    # A slide without regions is a case without glomeruli; its report calls it inadequate.
    if not predictions and not inputs.slides_without_regions:
        raise PredictionsError(
            f"no image could be classified: {_first_reason(failures, inputs.notes)}",
            where=source.where,
        )
    table = case_table(
        inputs, images, predictions, card=engine.card, calibration=calibration, out=out
    )
    map_test = None
    if settings.saliency and predictions:
        labels = likeliest_labels(table, engine.card.taxonomy)
        pictures = write_saliency(
            files, images, labels, out, weights_sha256=engine.weights_sha256, track=track
        )
        table["saliency_path"] = [pictures.get(image_id, pd.NA) for image_id in table["image_id"]]
        map_test = read_map_test(files.folder)
        notes = (*notes, *_map_notes(map_test))
    stain_notes = tuple(note.en for note in notes)
    notes = (*inputs.notes, *notes, *_engine_notes(engine, settings), *_seal_notes(model))
    facts = _case_facts(
        inputs,
        failures,
        notes,
        model=model_facts(engine, calibration, files.folder),
        region_options=None if settings.regions is None else settings.region_options.record(),
        created=created or dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        map_test=map_test,
    )
    write_case_folder(out, facts, table)
    return replace(
        _summary(out, table, failures),
        region_lines=inputs.region_lines,
        stain_notes=stain_notes,
    )


def _case_facts(
    inputs: PredictionInputs,
    failures: Sequence[Failure],
    notes: tuple[Note, ...],
    *,
    model: ModelFacts,
    region_options: dict[str, object] | None,
    created: str,
    map_test: Verdict | None,
) -> CaseFacts:
    return CaseFacts(
        created=created,
        glomerulab=version("glomerulab"),
        model=model,
        slides=inputs.slides,
        detector=inputs.detector,
        failures=failure_facts(failures, inputs.patients, inputs.manifest),
        is_synthetic=inputs.manifest.is_synthetic,
        notes=notes,
        region_options=region_options,
        map_test=map_test,
    )


def _summary(out: Path, table: pd.DataFrame, failures: tuple[Failure, ...]) -> PredictSummary:
    return PredictSummary(
        folder=out,
        n_images=len(table),
        n_referred=int((table["reasons"] != "").sum()),
        failures=failures,
        n_proposed=int(table["proposed"].sum()) if "proposed" in table else 0,
        n_without_stain=int(table["stain"].isna().sum()),
    )


def failure_facts(
    failures: Sequence[Failure], patients: Mapping[str, str | None], manifest: Manifest
) -> tuple[FailureFacts, ...]:
    """Assign each failure to a case.

    A failure of an image has no slide, and the image id as region. `patients` are by slide id.
    """
    table = manifest.table
    rows = {
        str(name): ("" if pd.isna(slide) else str(slide), None if pd.isna(who) else str(who))
        for name, slide, who in zip(
            table["image_id"], table["slide_id"], table["patient_id"], strict=True
        )
    }
    found = []
    for one in failures:
        slide, patient = one.slide, patients.get(one.slide)
        if not slide and one.region in rows:
            slide, patient = rows[one.region]
        case = patient or slide or one.region
        found.append(FailureFacts(case=case, slide_id=slide, name=one.region))
    return tuple(found)


def check_options(run: Path, settings: PredictSettings) -> None:
    """Refuse options that exclude each other before any work is done."""
    if settings.saliency:
        check_has_gradients(run)
    check_no_old_detector(run)
    if settings.detector is not None and settings.regions is not None:
        raise ConfigError("give regions that were drawn or a detector that proposes them, not both")
    if settings.regions is None and settings.region_options != RegionOptions():
        raise ConfigError(NEEDS_REGIONS)


def _first_reason(failures: Sequence[Failure], notes: Sequence[Note]) -> str:
    """Explain why nothing was classified."""
    if not failures:
        return " ".join(note.en for note in notes) or "it holds no image"
    first, n_others = failures[0], len(failures) - 1
    is_region = first.slide and first.region
    where = f"region {first.region!r} of {first.slide}: " if is_region else ""
    others = f" (and {count_noun(n_others, 'more failure')})" if n_others else ""
    return f"{where}{first.reason}{others}"


def _normalized(
    manifest: Manifest,
    calibration: ModelCalibration,
    out: Path,
    settings: PredictSettings,
    track: Track,
) -> tuple[Manifest, tuple[Note, ...]]:
    """Normalise each crop to the run's stain references from its own pixels alone.

    Stains fitted on a whole slide would be steadier, but a crop sent over HTTP has no slide: its
    call would be another one. See decision 0116.
    """
    if manifest.table.empty:
        return manifest, ()
    references = {
        stain: reference
        for stain, reference in calibration.references.items()
        if (manifest.table["stain"] == stain).any()
    }
    if not references:
        note = Note.of(
            "Crops were not stain-normalised: the run holds no stain reference for them."
        )
        return manifest, (note,)
    done = normalize_manifest(
        manifest.with_table(manifest.table.assign(slide_id=None)),
        references,
        make_folder(out / NORMALIZED_FOLDER),
        per="image",
        keep_others=True,
        n_workers=settings.processes(len(manifest.table)),
        track=track,
    )
    return done.manifest, _stain_notes(done)


def _stain_notes(done: NormalizedCohort) -> tuple[Note, ...]:
    """Return what a reader must know of crops that were not normalised here."""
    counts = {
        "{n} crops were normalised before, as their manifest records, and keep their colours.": (
            done.n_before
        ),
        "{n} crops were normalised before to another target than the model's and are referred; "
        "predict their originals.": done.n_by_status.get(OTHER_TARGET, 0),
        "{n} crops look like another stain than stated, keep their colours and are referred; "
        "correct the stain if it is wrong.": done.n_by_status.get(StainStatus.OTHER_STAIN.value, 0),
    }
    return tuple(Note.of(text, n=n) for text, n in counts.items() if n)


def _map_notes(test: Verdict) -> tuple[Note, ...]:
    """Return what a reader must know of the saliency maps."""
    texts = {
        "failed": "The saliency maps of this model failed their tests (`glomerulab explain`) and "
        "are not shown; `glomerulab report --maps` shows them.",
        "untested": "The saliency maps of this model were not tested; `glomerulab explain` does.",
    }
    return (Note.of(texts[test]),) if test in texts else ()


def _seal_notes(model: TrainedModel) -> tuple[Note, ...]:
    return () if model.seal_warning is None else (Note.of(model.seal_warning),)


def _engine_notes(engine: Engine, settings: PredictSettings) -> tuple[Note, ...]:
    """Return how the network was run differently from when it was evaluated."""
    notes = []
    loss = getattr(engine.card, "loss", None)
    if loss is not None:
        text = "The model was run in 8-bit integers; when it was exported, {loss}."
        english = translate(text, "en", loss=loss.text)
        notes.append(Note(en=english, zh=translate(text, "zh", loss=loss.text_zh)))
    if settings.symmetries:
        notes.append(
            Note.of(
                "Probabilities are means over the eight symmetries of each image; calibration and "
                "conformal sets were fitted on images as they are."
            )
        )
    return tuple(notes)
