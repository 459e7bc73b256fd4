"""From slides with regions, or a manifest of crops, to a folder of calls that a report is made of.

Every step continues what an earlier run left: crops, normalised crops and answers that are there
are not made again. Training is never imported.
"""

import csv
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from glomerulab.case_folder import (
    CaseFacts,
    DetectorFacts,
    ModelFacts,
    Note,
    write_case_folder,
)
from glomerulab.cohort.extract import CropSettings, Failure, extract_crops
from glomerulab.cohort.manifest import Manifest, read_manifest, refuse_other_labels
from glomerulab.cohort.normalize import normalize_manifest
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import CheckpointError, ConfigError, PredictionsError
from glomerulab.files import make_folder
from glomerulab.inference.answers import answer_manifest
from glomerulab.inference.case_table import case_table, likeliest_labels
from glomerulab.inference.detector import is_detector, open_detector
from glomerulab.inference.engine import Engine, open_engine
from glomerulab.inference.fit_gates import fit_gates
from glomerulab.inference.gates import Gates, has_gates, read_gates
from glomerulab.inference.propose import Proposed, propose_regions
from glomerulab.inference.saliency import refuse_export, write_saliency
from glomerulab.inference.slide_facts import SlidesRead, read_slide_facts
from glomerulab.inference.symmetries import MARK, SymmetricEngine
from glomerulab.inference.unjudged import FAILURES_FILE, unjudged_of, write_failures
from glomerulab.models.card import ModelCard
from glomerulab.progress import Track, silent

__all__ = ["PredictSettings", "PredictSummary", "model_facts", "predict"]

CUT_FOLDER = "cut"
NORMALIZED_FOLDER = "normalized"
MANY_IMAGES = 500
"""From so many on processes are started: each start takes seconds, an image some 20 ms here."""


@dataclass(frozen=True)
class PredictSettings:
    """How slides are read."""

    regions: Path | None = None
    """For slides: one region file, or a folder with one called after each slide."""
    margin: float = 0.1
    """As the training crops were cut."""
    mpp_override: float | None = None
    stain: str | None = None
    """Of slides and crops that do not say."""
    n_workers: int = 1
    detector: Path | None = None
    """Instead of regions: what ``train-detector`` made; it proposes them."""
    symmetries: bool = False
    """Whether each image is judged in all eight ways it can lie, and the mean taken."""
    saliency: bool = False
    """Whether a picture of where the network looked is made of each image."""

    def processes(self, n_images: int) -> int:
        """Return how many processes so many images are worth, `n_workers` at most."""
        return self.n_workers if n_images >= MANY_IMAGES else 1


@dataclass(frozen=True)
class PredictSummary:
    """What a run did."""

    folder: Path
    n_images: int
    n_referred: int
    failures: tuple[Failure, ...]
    n_proposed: int = 0
    """Images of regions that a detector proposed and nobody drew."""


@dataclass(frozen=True)
class _Cut:
    """Crops to be judged, whichever way they came."""

    manifest: Manifest
    read: SlidesRead = field(default_factory=lambda: SlidesRead((), {}))
    failures: tuple[Failure, ...] = ()
    notes: tuple[Note, ...] = ()
    detector: DetectorFacts | None = None
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    """Of proposals, by slide id and region id."""
    patients: dict[str, str | None] = field(default_factory=dict)
    """Of the slides, by slide id."""


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
        If not one image could be judged.
    GlomerulabError
        If the source is missing, or `out` holds crops of other settings.
    """
    settings = settings or PredictSettings()
    _refuse_mismatch(run, settings)
    engine = open_engine(run)
    gates = read_gates(run) if has_gates(run) else fit_gates(run, track=track)
    if gates.facts.weights_sha256 != engine.weights_sha256:
        raise CheckpointError(
            "the gates were fitted for other weights; run `glomerulab gates RUN` again",
            where=str(run),
        )
    make_folder(out)
    cut = _crops(source, engine, out, settings, track)
    shown, notes = _normalized(cut.manifest, gates, out, settings, track)
    asked = SymmetricEngine(engine) if settings.symmetries else engine
    mark = f"{gates.mark}-{MARK}" if settings.symmetries else gates.mark
    answers, unreadable = answer_manifest(
        shown, asked, gates, out, mark=mark, n_workers=settings.processes(len(shown.table)),
        track=track,
    )  # fmt: skip
    failures = (*cut.failures, *(Failure("", key, text) for key, text in unreadable.items()))
    write_failures(out / FAILURES_FILE, failures)
    if not answers:
        reason = _why_none(failures, cut.notes)
        raise PredictionsError(f"not one image could be judged: {reason}", where=str(source))
    table = case_table(
        cut.manifest, shown, answers, card=engine.card, gates=gates, out=out, read=cut.read,
        scores=cut.scores,
    )  # fmt: skip
    if settings.saliency:
        pictures = write_saliency(
            run, shown, likeliest_labels(table, engine.card.taxonomy), out,
            mark=engine.weights_sha256, track=track,
        )  # fmt: skip
        table["saliency_path"] = [pictures.get(key, pd.NA) for key in table["image_id"]]
    facts = CaseFacts(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        glomerulab=version("glomerulab"),
        model=model_facts(engine, gates, run),
        slides=cut.read.facts,
        detector=cut.detector,
        unjudged=unjudged_of(failures, cut.patients, cut.manifest),
        is_synthetic=cut.manifest.is_synthetic,
        notes=(*cut.notes, *notes, *_asking_notes(engine, settings)),
    )
    write_case_folder(out, facts, table)
    n_referred = int((table["reasons"] != "").sum())
    n_proposed = int(table["proposed"].sum()) if "proposed" in table else 0
    return PredictSummary(out, len(table), n_referred, failures, n_proposed)


def _refuse_mismatch(run: Path, settings: PredictSettings) -> None:
    """Refuse what cannot go together before any work is done."""  # noqa: DOC501
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


def _why_none(failures: Sequence[Failure], notes: Sequence[Note]) -> str:
    if failures:
        return failures[0].reason
    return " ".join(note.en for note in notes) or "it holds no image"


def _crops(
    source: Path, engine: Engine, out: Path, settings: PredictSettings, track: Track
) -> _Cut:
    """Read the manifest, or cut the slides at the mpp of the model."""  # noqa: DOC501
    card = engine.card
    if _is_manifest(source):
        if settings.detector is not None:
            raise ConfigError("holds crops already: leave out --detect", where=str(source))
        refuse_other_labels(read_manifest(source), card.taxonomy)
        manifest = read_manifest(source, card.taxonomy)
        return _Cut(_with_stain(manifest, settings.stain), notes=_mpp_notes(manifest, card.mpp))
    if settings.regions is None and settings.detector is None:
        raise ConfigError(
            "slides need regions: give --regions FILE or FOLDER (QuPath GeoJSON, ImageScope, "
            "ASAP, COCO or CSV), or --detect DETECTOR, which proposes them",
            where=str(source),
        )
    if card.mpp is None:
        raise ConfigError(
            "the model does not say its micrometres per pixel, since its training crops did not; "
            "cut the crops with `glomerulab extract --mpp` and give their manifest",
            where=str(source),
        )
    if settings.detector is None:
        return _cut(source, settings.regions or source, card, out, settings=settings, track=track)
    detector = open_detector(settings.detector)
    proposed = propose_regions(
        read_slides(source), detector, out, mpp_override=settings.mpp_override,
        stain=settings.stain, track=track,
    )  # fmt: skip
    cut = _cut(source, proposed.folder, card, out, settings=settings, track=track)
    return replace(
        cut, detector=detector.facts, scores=proposed.scores,
        notes=(*proposed.notes, *cut.notes), failures=_told_once(cut.failures, proposed),
    )  # fmt: skip


def _cut(
    source: Path,
    regions: Path,
    card: ModelCard,
    out: Path,
    *,
    settings: PredictSettings,
    track: Track,
) -> _Cut:
    """Cut the regions of slides at the mpp of the model."""
    taxonomy, mpp = card.taxonomy, card.mpp or 0.0
    cutting = CropSettings(mpp, settings.margin, mpp_override=settings.mpp_override)
    entries = read_slides(source)
    read = read_slide_facts(
        entries, regions, out=out, mpp_override=settings.mpp_override, stain=settings.stain
    )
    done = extract_crops(
        source, regions=regions, out=out / CUT_FOLDER, settings=cutting, taxonomy=taxonomy,
        n_workers=settings.processes(len(read.outlines)), track=track,
    )  # fmt: skip
    manifest = read_manifest(done.manifest_path, taxonomy)
    ours = manifest.table["slide_id"].isin({entry.slide_id for entry in entries})
    manifest = manifest.with_table(manifest.table[ours.to_numpy(dtype=bool)])
    notes = [
        Note(
            en=f"Slide {name} is coarser than the model's {mpp:g} µm per pixel: its crops "
            "were enlarged and hold no finer detail.",
            zh=f"切片 {name} 的分辨率低于模型的 {mpp:g} µm/像素：图像经放大，并无更多细节。",
        )
        for name in done.enlarged_slides
    ]
    return _Cut(
        _with_stain(manifest, settings.stain), read, done.failures, tuple(notes),
        patients={entry.slide_id: entry.patient_id for entry in entries},
    )  # fmt: skip


def _told_once(failures: Sequence[Failure], proposed: Proposed) -> tuple[Failure, ...]:
    """Say of slides without regions why, and nothing where none was proposed: a note tells that."""
    told = {*proposed.empty_slides, *(one.slide for one in proposed.failures)}
    return (*proposed.failures, *(one for one in failures if one.slide not in told))


def _is_manifest(source: Path) -> bool:
    if source.suffix.lower() == ".parquet":
        return True
    if source.suffix.lower() != ".csv" or not source.is_file():
        return False
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    return "slide_path" not in {name.strip() for name in header}


def _with_stain(manifest: Manifest, stain: str | None) -> Manifest:
    if stain is None:
        return manifest
    table = manifest.table.assign(stain=manifest.table["stain"].fillna(stain))
    return manifest.with_table(table)


def _mpp_notes(manifest: Manifest, mpp: float | None) -> tuple[Note, ...]:
    """Say which crops have another scale than the model's."""
    stated = manifest.table["mpp"].dropna()
    if mpp is None or stated.empty:
        return (
            Note(
                en="Whether the crops have the model's micrometres per pixel is not known.",
                zh="图像的分辨率（µm/像素）是否与模型一致，尚不清楚。",
            ),
        )
    n_other = int(((stated / mpp - 1).abs() > 0.1).sum())
    if not n_other:
        return ()
    return (
        Note(
            en=f"{n_other} of {len(manifest.table)} crops are not at the model's {mpp:g} µm per "
            "pixel.",
            zh=f"{len(manifest.table)} 幅图像中有 {n_other} 幅的分辨率不是模型的 {mpp:g} µm/像素。",
        ),
    )


def _normalized(
    manifest: Manifest, gates: Gates, out: Path, settings: PredictSettings, track: Track
) -> tuple[Manifest, tuple[Note, ...]]:
    """Bring the crops to the run's stain references, as its training images were."""
    references = {
        stain: reference
        for stain, reference in gates.references.items()
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
        manifest, references, make_folder(out / NORMALIZED_FOLDER),
        per="slide" if per_slide else "image", keep_others=True,
        n_workers=settings.processes(len(manifest.table)),
        track=track,
    )  # fmt: skip
    return done.manifest, ()


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


def model_facts(engine: Engine, gates: Gates, run: Path) -> ModelFacts:
    """Say what a reader must know of a model.

    Parameters
    ----------
    engine : Engine
    gates : Gates
    run : Path
        Only its name is told.

    Returns
    -------
    ModelFacts
    """
    card, facts = engine.card, gates.facts
    return ModelFacts(
        model=card.model, head=card.head, taxonomy_name=card.taxonomy_name, labels=card.labels,
        run=run.resolve().name, normalized_to=tuple(gates.references),
        **facts.model_dump(exclude={"format"}),
    )  # fmt: skip
