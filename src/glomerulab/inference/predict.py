"""From slides with regions, or a manifest of crops, to a folder of calls that a report is made of.

Every step continues what an earlier run left: crops, normalised crops and answers that are there
are not made again. Training is never imported.
"""

import csv
import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.case_folder import (
    CaseFacts,
    ModelFacts,
    SlideFacts,
    outline_text,
    write_case_folder,
)
from glomerulab.cohort.extract import CropSettings, Failure, extract_crops
from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.cohort.normalize import normalize_manifest
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import CheckpointError, ConfigError, PredictionsError
from glomerulab.files import make_folder, written_whole
from glomerulab.geometry import Point
from glomerulab.inference.answers import Answer, answer_manifest
from glomerulab.inference.decide import decide
from glomerulab.inference.engine import Engine, open_engine
from glomerulab.inference.fit_gates import fit_gates
from glomerulab.inference.gates import Gates, has_gates, read_gates
from glomerulab.inference.slide_facts import read_slide_facts
from glomerulab.progress import Track, silent

__all__ = ["PredictSettings", "PredictSummary", "model_facts", "predict"]

CUT_FOLDER = "cut"
NORMALIZED_FOLDER = "normalized"
FAILURES_FILE = "failures.csv"


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


@dataclass(frozen=True)
class PredictSummary:
    """What a run did."""

    folder: Path
    n_images: int
    n_referred: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Cut:
    """Crops to be judged, whichever way they came."""

    manifest: Manifest
    slides: tuple[SlideFacts, ...] = ()
    outlines: dict[tuple[str, str], tuple[Point, ...]] | None = None
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


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
    answers, unreadable = answer_manifest(shown, engine, gates, out, track=track)
    failures = (*cut.failures, *(Failure("", key, text) for key, text in unreadable.items()))
    _write_failures(out / FAILURES_FILE, failures)
    if not answers:
        reason = failures[0].reason if failures else "the source holds no image"
        raise PredictionsError(f"not one image could be judged: {reason}", where=str(source))
    table = _table(cut, shown, answers, engine=engine, gates=gates, out=out)
    facts = CaseFacts(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        glomerulab=version("glomerulab"),
        model=model_facts(engine, gates, run),
        slides=cut.slides,
        is_synthetic=_is_synthetic(cut.manifest),
        notes=(*cut.notes, *notes),
    )
    write_case_folder(out, facts, table)
    n_referred = int((table["reasons"] != "").sum())
    return PredictSummary(out, len(table), n_referred, failures)


def _crops(
    source: Path, engine: Engine, out: Path, settings: PredictSettings, track: Track
) -> _Cut:
    """Read the manifest, or cut the slides at the mpp of the model."""  # noqa: DOC501
    card = engine.card
    if _is_manifest(source):
        manifest = read_manifest(source, card.taxonomy)
        return _Cut(_with_stain(manifest, settings.stain), notes=_mpp_notes(manifest, card.mpp))
    if settings.regions is None:
        raise ConfigError(
            "slides need regions: give --regions FILE or FOLDER (QuPath GeoJSON, ImageScope, "
            "ASAP, COCO or CSV)",
            where=str(source),
        )
    if card.mpp is None:
        raise ConfigError(
            "the model does not say its micrometres per pixel, since its training crops did not; "
            "cut the crops with `glomerulab extract --mpp` and give their manifest",
            where=str(source),
        )
    cutting = CropSettings(card.mpp, settings.margin, mpp_override=settings.mpp_override)
    done = extract_crops(
        source, regions=settings.regions, out=out / CUT_FOLDER, settings=cutting,
        taxonomy=card.taxonomy, n_workers=settings.n_workers, track=track,
    )  # fmt: skip
    entries = read_slides(source)
    slides = read_slide_facts(
        entries, settings.regions, out=out, mpp_override=settings.mpp_override,
        stain=settings.stain,
    )  # fmt: skip
    manifest = read_manifest(done.manifest_path, card.taxonomy)
    ours = manifest.table["slide_id"].isin({entry.slide_id for entry in entries})
    manifest = manifest.with_table(manifest.table[ours.to_numpy(dtype=bool)])
    notes = [
        f"Slide {name} is coarser than the model's {card.mpp:g} µm per pixel: its crops were "
        "enlarged and hold no finer detail."
        for name in done.enlarged_slides
    ]
    return _Cut(
        _with_stain(manifest, settings.stain), slides.facts, slides.outlines, done.failures,
        tuple(notes),
    )  # fmt: skip


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


def _mpp_notes(manifest: Manifest, mpp: float | None) -> tuple[str, ...]:
    """Say which crops have another scale than the model's."""
    stated = manifest.table["mpp"].dropna()
    if mpp is None or stated.empty:
        return ("Whether the crops have the model's micrometres per pixel is not known.",)
    n_other = int(((stated / mpp - 1).abs() > 0.1).sum())
    if not n_other:
        return ()
    return (
        f"{n_other} of {len(manifest.table)} crops are not at the model's {mpp:g} µm per pixel.",
    )


def _normalized(
    manifest: Manifest, gates: Gates, out: Path, settings: PredictSettings, track: Track
) -> tuple[Manifest, tuple[str, ...]]:
    """Bring the crops to the run's stain references, as its training images were."""
    references = {
        stain: reference
        for stain, reference in gates.references.items()
        if (manifest.table["stain"] == stain).any()
    }
    if not references:
        note = "Crops were judged in their own colours: the run holds no stain reference for them."
        return manifest, (note,)
    per_slide = not manifest.table["slide_id"].isna().any()
    done = normalize_manifest(
        manifest, references, make_folder(out / NORMALIZED_FOLDER),
        per="slide" if per_slide else "image", keep_others=True, n_workers=settings.n_workers,
        track=track,
    )  # fmt: skip
    return done.manifest, ()


def _table(
    cut: _Cut,
    shown: Manifest,
    answers: dict[str, Answer],
    *,
    engine: Engine,
    gates: Gates,
    out: Path,
) -> pd.DataFrame:
    """Join rows, answers and calls into the table that `read_case_folder` reads."""
    card = engine.card
    rows = cut.manifest.table
    rows = rows[rows["image_id"].isin(list(answers))].reset_index(drop=True)
    statuses: dict[str, str] = {}
    if "stain_status" in shown.table:
        statuses = dict(zip(shown.table["image_id"], shown.table["stain_status"], strict=True))
    found = [answers[key] for key in rows["image_id"]]
    decisions = decide(
        np.array([answer.logits for answer in found]),
        [answer.distance for answer in found],
        [answer.sharpness for answer in found],
        stains=[None if pd.isna(stain) else str(stain) for stain in rows["stain"]],
        stain_statuses=[statuses.get(key) for key in rows["image_id"]],
        gates=gates, taxonomy=card.taxonomy, head=card.head,
    )  # fmt: skip
    paths = dict(zip(cut.manifest.table["image_id"], cut.manifest.image_paths(), strict=True))
    keys = card.taxonomy.label_ids
    columns: dict[str, object] = {
        name: rows.get(name, pd.NA)
        for name in (
            "image_id", "patient_id", "slide_id", "region_id", "stain", "mpp",
            "x", "y", "width", "height",
        )
    }  # fmt: skip
    columns["image_path"] = [_relative(paths[key], out) for key in rows["image_id"]]
    for key in keys:
        columns[f"label_{key}"] = rows[key]
    for key in keys:
        columns[f"probability_{key}"] = [one.probabilities[key] for one in decisions]
    for key in keys:
        columns[f"called_{key}"] = [int(key in one.called) for one in decisions]
        columns[f"state_{key}"] = [one.states[key] for one in decisions]
    columns["reasons"] = [" ".join(one.reasons) for one in decisions]
    columns["distance"] = [round(answer.distance, 4) for answer in found]
    columns["sharpness"] = [round(answer.sharpness, 4) for answer in found]
    if cut.outlines is not None:
        places = zip(rows["slide_id"], rows["region_id"], strict=True)
        columns["outline"] = [outline_text(cut.outlines.get(place, ())) for place in places]
    return pd.DataFrame(columns)


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


def _is_synthetic(manifest: Manifest) -> bool:
    if "synthetic" not in manifest.table:
        return False
    flags = manifest.table["synthetic"].astype("string").str.casefold()
    return bool(flags.isin(["1", "1.0", "true"]).any())


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start.absolute())).as_posix()


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", "region_or_image", "reason"))
        writer.writerows((one.slide, one.region, one.reason) for one in failures)
