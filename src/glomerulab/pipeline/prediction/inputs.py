"""The crops that `predict` judges: of a manifest, or cut from slides at regions."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glomerulab.cases.case_folder import DetectorFacts, Note
from glomerulab.cohort.manifest import Manifest, check_same_labels, read_manifest
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import ConfigError
from glomerulab.inference.detector import open_detector
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.extract import CropSettings, Failure, extract_crops
from glomerulab.pipeline.prediction.propose import Proposed, propose_regions
from glomerulab.pipeline.prediction.settings import PredictSettings
from glomerulab.pipeline.prediction.slide_facts import SlidesRead, read_slide_facts
from glomerulab.runtime.progress import Track, silent

__all__ = ["JudgedCrops", "crops_of"]

CUT_FOLDER = "cut"


@dataclass(frozen=True)
class JudgedCrops:
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


def crops_of(
    source: Path, card: ModelCard, out: Path, *, settings: PredictSettings, track: Track = silent
) -> JudgedCrops:
    """Read a manifest of crops, or cut slides at the mpp of the model.

    Parameters
    ----------
    source : Path
        See `predict`.
    card : ModelCard
        Of the model that will judge.
    out : Path
        Crops go to ``cut/`` in it.
    settings : PredictSettings
    track : Track, optional

    Returns
    -------
    JudgedCrops

    Raises
    ------
    ConfigError
        If slides come without regions or detector, or the model does not say its mpp.
    """
    if _is_manifest(source):
        if settings.detector is not None:
            raise ConfigError("holds crops already: leave out --detect", where=str(source))
        check_same_labels(read_manifest(source), card.taxonomy)
        manifest = read_manifest(source, card.taxonomy)
        return JudgedCrops(
            _with_stain(manifest, settings.stain), notes=_mpp_notes(manifest, card.mpp)
        )
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
        return _cut_at_regions(
            source, settings.regions or source, card, out, settings=settings, track=track
        )
    detector = open_detector(settings.detector)
    proposed = propose_regions(
        read_slides(source),
        detector,
        out,
        mpp_override=settings.mpp_override,
        stain=settings.stain,
        track=track,
    )
    cut = _cut_at_regions(source, proposed.folder, card, out, settings=settings, track=track)
    return replace(
        cut,
        detector=detector.facts,
        scores=proposed.scores,
        notes=(*proposed.notes, *cut.notes),
        failures=_told_once(cut.failures, proposed),
    )


def _cut_at_regions(
    source: Path,
    regions: Path,
    card: ModelCard,
    out: Path,
    *,
    settings: PredictSettings,
    track: Track,
) -> JudgedCrops:
    """Cut the regions of slides at the mpp of the model."""
    taxonomy, mpp = card.taxonomy, card.mpp or 0.0
    cutting = CropSettings(mpp, settings.margin, mpp_override=settings.mpp_override)
    entries = read_slides(source)
    read = read_slide_facts(
        entries, regions, out=out, mpp_override=settings.mpp_override, stain=settings.stain
    )
    done = extract_crops(
        source,
        regions=regions,
        out=out / CUT_FOLDER,
        settings=cutting,
        taxonomy=taxonomy,
        n_workers=settings.processes(len(read.outlines)),
        track=track,
    )
    manifest = read_manifest(done.manifest_path, taxonomy)
    ours = manifest.table["slide_id"].isin({entry.slide_id for entry in entries})
    manifest = manifest.with_table(manifest.table[ours.to_numpy(dtype=bool)])
    patients = {entry.slide_id: entry.patient_id for entry in entries}
    notes = [
        Note(
            en=f"Slide {name} is coarser than the model's {mpp:g} µm per pixel: its crops "
            "were enlarged and hold no finer detail.",
            zh=f"切片 {name} 的分辨率低于模型的 {mpp:g} µm/像素：图像经放大，并无更多细节。",
            case=patients[name] or name,
        )
        for name in done.enlarged_slides
    ]
    if settings.detector is None:  # of proposals there is a note already
        notes += [
            Note(
                en=f"No region lies on slide {name}: it adds no glomerulus.",
                zh=f"切片 {name} 上没有任何区域：不计入肾小球。",
                case=patients[name] or name,
            )
            for name in read.bare
        ]
    return JudgedCrops(
        _with_stain(manifest, settings.stain), read, done.failures, tuple(notes), patients=patients
    )


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
    """Say of each case how many crops have another scale than the model's."""
    stated = manifest.table["mpp"].dropna()
    if mpp is None or stated.empty:
        return (
            Note(
                en="Whether the crops have the model's micrometres per pixel is not known.",
                zh="图像的分辨率（µm/像素）是否与模型一致，尚不清楚。",
            ),
        )
    table = manifest.table
    is_other = (table["mpp"].astype("float64") / mpp - 1).abs() > 0.1
    cases = table["patient_id"].fillna(table["slide_id"]).fillna(table["image_id"])
    counted = is_other.groupby(cases, sort=False).agg(["sum", "size"])
    return tuple(
        Note(
            en=f"{n_other} of {n} crops are not at the model's {mpp:g} µm per pixel.",
            zh=f"{n} 幅图像中有 {n_other} 幅的分辨率不是模型的 {mpp:g} µm/像素。",
            case=str(case),
        )
        for case, n_other, n in counted.itertuples()
        if n_other
    )
