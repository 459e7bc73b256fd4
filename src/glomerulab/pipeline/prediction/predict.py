"""From slides with regions, or a manifest of crops, to a folder of calls that a report is made of.

Every step continues what an earlier run left: crops, normalised crops and answers that are there
are not made again. Training is never imported.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from glomerulab.cases.case_folder import CaseFacts, ModelFacts, Note, write_case_folder
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import CheckpointError, ConfigError, PredictionsError
from glomerulab.inference.calibration import (
    ModelCalibration,
    has_calibration,
    model_facts,
    read_calibration,
)
from glomerulab.inference.detector import is_detector
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.fit_calibration import fit_calibration
from glomerulab.inference.image_predictions import predict_images
from glomerulab.inference.tta import TTA_MARK, TtaEngine
from glomerulab.pipeline.extract import Failure
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.pipeline.prediction.case_table import case_table, likeliest_labels
from glomerulab.pipeline.prediction.failures import FAILURES_FILE, unjudged_of, write_failures
from glomerulab.pipeline.prediction.inputs import JudgedCrops, crops_of
from glomerulab.pipeline.prediction.saliency import refuse_export, write_saliency
from glomerulab.pipeline.prediction.settings import PredictSettings
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent

__all__ = ["PredictSummary", "predict"]

NORMALIZED_FOLDER = "normalized"


@dataclass(frozen=True)
class PredictSummary:
    """What a run did."""

    folder: Path
    n_images: int
    n_referred: int
    failures: tuple[Failure, ...]
    n_proposed: int = 0
    """Images of regions that a detector proposed and nobody drew."""
    n_without_stain: int = 0
    """Images whose stain nobody stated: each is referred for that alone."""


def predict(
    source: Path,
    run: Path,
    out: Path,
    *,
    settings: PredictSettings | None = None,
    track: Track = silent,
) -> PredictSummary:
    """Apply a trained model.

    Parameters
    ----------
    source : Path
        A slide, a folder of slides, a slides table (CSV with ``slide_path``), or a manifest of
        crops (``image_path``).
    run : Path
        A run folder, or an exported one. Its gates are fitted on first use if its images are
        still there.
    out : Path
        Gets ``predictions.csv``, ``case.json``, ``failures.csv`` and the crops.
    settings : PredictSettings, optional
    track : Track, optional

    Returns
    -------
    PredictSummary
        With every slide, region and image that could not be judged.

    Raises
    ------
    CheckpointError
        If the model cannot be read, or its gates are another model's.
    PredictionsError
        If not one image could be judged, unless a slide was read on which no region lies.
    GlomerulabError
        If the source is missing, or `out` holds crops of other settings.
    """
    settings = settings or PredictSettings()
    _refuse_mismatch(run, settings)
    engine, calibration = _opened(run, track)
    make_folder(out)
    cut = crops_of(source, engine.card, out, settings=settings, track=track)
    shown, notes = _normalized(cut.manifest, calibration, out, settings, track)
    asked = TtaEngine(engine) if settings.symmetries else engine
    fingerprint = (
        f"{calibration.fingerprint}-{TTA_MARK}" if settings.symmetries else calibration.fingerprint
    )
    answers, unreadable = predict_images(
        shown,
        asked,
        calibration,
        out,
        fingerprint=fingerprint,
        n_workers=settings.processes(len(shown.table)),
        track=track,
    )
    failures = (*cut.failures, *(Failure("", key, text) for key, text in unreadable.items()))
    write_failures(out / FAILURES_FILE, failures)
    if not answers and not cut.read.bare:  # a slide without glomeruli is a case: it is inadequate
        reason = _why_none(failures, cut.notes)
        raise PredictionsError(f"not one image could be judged: {reason}", where=str(source))
    table = case_table(
        cut.manifest,
        shown,
        answers,
        card=engine.card,
        calibration=calibration,
        out=out,
        read=cut.read,
        scores=cut.scores,
    )
    if settings.saliency and answers:
        pictures = write_saliency(
            run,
            shown,
            likeliest_labels(table, engine.card.taxonomy),
            out,
            mark=engine.weights_sha256,
            track=track,
        )
        table["saliency_path"] = [pictures.get(key, pd.NA) for key in table["image_id"]]
    notes = (*cut.notes, *notes, *_asking_notes(engine, settings))
    facts = _case_facts(cut, failures, notes, model=model_facts(engine, calibration, run))
    write_case_folder(out, facts, table)
    n_referred = int((table["reasons"] != "").sum())
    n_proposed = int(table["proposed"].sum()) if "proposed" in table else 0
    n_without_stain = int(table["stain"].isna().sum())
    return PredictSummary(out, len(table), n_referred, failures, n_proposed, n_without_stain)


def _refuse_mismatch(run: Path, settings: PredictSettings) -> None:
    """Refuse what cannot go together before any work is done."""
    if settings.saliency:
        refuse_export(run)
    if is_detector(run):
        raise ConfigError(
            "is a detector, which tells glomeruli from other tissue and no lesions: give it with "
            "--detect, and a run of `glomerulab train` with --model",
            where=str(run),
        )
    if settings.detector is not None and settings.regions is not None:
        raise ConfigError("give --regions (drawn ones) or --detect (proposals), not both")


def _opened(run: Path, track: Track) -> tuple[Engine, ModelCalibration]:
    """Return the model and its gates, fitted now if they were not yet."""
    engine = open_engine(run)
    calibration = (
        read_calibration(run) if has_calibration(run) else fit_calibration(run, track=track)
    )
    if calibration.facts.weights_sha256 != engine.weights_sha256:
        raise CheckpointError(
            "the gates were fitted for other weights; run `glomerulab gates RUN` again",
            where=str(run),
        )
    return engine, calibration


def _why_none(failures: Sequence[Failure], notes: Sequence[Note]) -> str:
    if failures:
        first, n_others = failures[0], len(failures) - 1
        is_on_slide = first.slide and first.region
        where = f"region {first.region!r} of {first.slide}: " if is_on_slide else ""
        others = f" ({n_others} more could not be judged)" if n_others else ""
        return f"{where}{first.reason}{others}"
    return " ".join(note.en for note in notes) or "it holds no image"


def _normalized(
    manifest: Manifest,
    calibration: ModelCalibration,
    out: Path,
    settings: PredictSettings,
    track: Track,
) -> tuple[Manifest, tuple[Note, ...]]:
    """Bring the crops to the run's stain references, as its training images were."""
    if manifest.table.empty:
        return manifest, ()
    references = {
        stain: reference
        for stain, reference in calibration.references.items()
        if (manifest.table["stain"] == stain).any()
    }
    if not references:
        note = Note(
            en="Crops were judged in their own colours: the run holds no stain reference for them.",
            zh="图像未经颜色归一化即判定：模型没有相应的染色参考。",
        )
        return manifest, (note,)
    per_slide = not manifest.table["slide_id"].isna().any()
    done = normalize_manifest(
        manifest,
        references,
        make_folder(out / NORMALIZED_FOLDER),
        per="slide" if per_slide else "image",
        keep_others=True,
        n_workers=settings.processes(len(manifest.table)),
        track=track,
    )
    return done.manifest, ()


def _case_facts(
    cut: JudgedCrops, failures: Sequence[Failure], notes: Sequence[Note], *, model: ModelFacts
) -> CaseFacts:
    return CaseFacts(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        glomerulab=version("glomerulab"),
        model=model,
        slides=cut.read.facts,
        detector=cut.detector,
        failures=unjudged_of(failures, cut.patients, cut.manifest),
        is_synthetic=cut.manifest.is_synthetic,
        notes=tuple(notes),
    )


def _asking_notes(engine: Engine, settings: PredictSettings) -> tuple[Note, ...]:
    """Say what of the answers is not as the model was judged."""
    notes = []
    loss = getattr(engine.card, "loss", None)
    if loss is not None:
        notes.append(
            Note(
                en=f"The model was run in 8-bit integers; when it was exported, {loss.text}.",
                zh=f"模型以8位整数运行；导出时，{loss.text_zh}。",
            )
        )
    if not settings.symmetries:
        return tuple(notes)
    note = Note(
        en="Probabilities are means over the eight symmetries of each image; calibration and "
        "conformal sets were fitted on images as they are.",
        zh="概率为每幅图像八种对称变换的平均；校准与共形集由未变换的图像拟合。",
    )
    return (*notes, note)
