"""The crops that `predict` classifies: those of a manifest, or cut from slides at regions.

A slide is opened once: for its metadata, overview picture, a detector's proposals and its crops.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glomerulab.cases.case_folder import CASE_FILE, DetectorFacts, Note, SlideFacts
from glomerulab.cohort.leakage import look_alike_patients
from glomerulab.cohort.manifest import Manifest, check_same_labels, raise_first, read_manifest
from glomerulab.cohort.schema import HALF_BOX, Problem, check_stain, half_boxes
from glomerulab.cohort.slides_table import SlideEntry, is_slides_table, read_slides
from glomerulab.errors import ConfigError, ImageFileError
from glomerulab.geometry import Box, Region
from glomerulab.images import read_image
from glomerulab.inference.detector import Detector
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.crop_plan import CropSettings, Failure
from glomerulab.pipeline.extract import ExtractSummary, extract_entries
from glomerulab.pipeline.slide_reader import SlideReader
from glomerulab.runtime.files import StrPath
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import BOX_COLUMNS
from glomerulab.slides.regions.features import DEFAULT_OPTIONS, RegionOptions
from glomerulab.slides.regions.overlaps import count_once, repeats_text
from glomerulab.slides.regions.selection import left_out_notes

__all__ = ["PredictSettings"]

CUT_FOLDER = "cut"
MIN_PARALLEL = 500
"""Images from which worker processes are started: each start takes seconds, an image some 20 ms."""
MOST_WARNINGS = 10
MPP_TOLERANCE = 0.1
"""Relative difference from the model's mpp above which a crop is reported."""


@dataclass(frozen=True)
class PredictSettings:
    """How `predict` reads slides and crops."""

    regions: StrPath | None = None
    """For slides: one region file, or a folder with one named after each slide."""
    margin: float = 0.1
    """Around regions; the value that the training crops were cut with."""
    mpp_override: float | None = None
    """Micrometres per pixel of level 0 of every slide, in place of the files' metadata."""
    stain: str | None = None
    """Of slides and crops that do not state theirs."""
    n_workers: int = 1
    detector: StrPath | Detector | None = None
    """Run folder of a detector that proposes regions, or an open one, instead of `regions`."""
    symmetries: bool = False
    """Average the probabilities over the eight symmetries of each image."""
    saliency: bool = False
    """Write a saliency picture of each image."""
    region_options: RegionOptions = DEFAULT_OPTIONS
    """How region files are read."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no slide or crop can have."""
        check_stain(self.stain)
        # Negated, so that NaN is refused.
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin must be at least 0 and finite, got {self.margin}")
        if self.mpp_override is not None and not 0 < self.mpp_override < math.inf:
            raise ValueError(f"mpp_override must be above 0 and finite, got {self.mpp_override}")
        if self.n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {self.n_workers}")

    def processes(self, n_images: int) -> int:
        """Return how many processes to use for so many images, `n_workers` at most."""
        return self.n_workers if n_images >= MIN_PARALLEL else 1


@dataclass(frozen=True)
class PredictionInputs:
    """The crops to classify, and the slides that they come from."""

    manifest: Manifest
    slides: tuple[SlideFacts, ...] = ()
    """Slides that could be opened; none for a manifest of crops."""
    regions: Mapping[tuple[str, str], Region] = field(default_factory=dict)
    """By slide id and region id."""
    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Detector scores of proposed regions, by slide id and region id."""
    slides_without_regions: tuple[str, ...] = ()
    """Slides whose region file was read and holds no region for them."""
    failures: tuple[Failure, ...] = ()
    notes: tuple[Note, ...] = ()
    detector: DetectorFacts | None = None
    patients: Mapping[str, str | None] = field(default_factory=dict)
    """By slide id."""
    region_lines: tuple[str, ...] = ()
    """What the user must know of regions, scale and patients, counted over all slides."""


@dataclass(frozen=True)
class Source:
    """What `predict` is applied to: the crops of a manifest, or slides."""

    where: str
    """The file or folder, for error messages."""
    slides: tuple[SlideEntry, ...] = ()
    n_slides: int = 0
    """Slides that the region files are meant for: all of a cohort, where `slides` are of a case."""
    manifest: Manifest | None = None

    def take(self, rows: NDArray[np.intp]) -> "Source":
        """Return some of the slides or images, by number."""
        if self.manifest is None:
            return replace(self, slides=tuple(self.slides[row] for row in rows))
        some = self.manifest.with_table(self.manifest.table.iloc[rows])
        return replace(self, manifest=replace(some, folder=some.folder.absolute()))


def read_source(source: Path, card: ModelCard, settings: PredictSettings) -> Source:
    """Read a manifest of crops with the labels of the model, or list slides.

    Raises
    ------
    ConfigError
        If the settings do not fit, such as slides without regions.
    GlomerulabError
        If the source is missing or malformed.
    """
    if _is_manifest(source):
        return Source(str(source), manifest=_checked_manifest(source, card, settings))
    if settings.regions is None and settings.detector is None:
        raise ConfigError(
            "slides need regions: give a region file or a folder of them (--regions, in Python "
            "`regions`: QuPath GeoJSON, ImageScope, ASAP, COCO or CSV), or a detector, which "
            "proposes them (--detect, in Python `detector`)",
            where=str(source),
        )
    if card.mpp is None:
        raise ConfigError(
            "the model does not state its micrometres per pixel, because its training crops did "
            "not; cut the crops with `glomerulab extract --mpp` and give their manifest",
            where=str(source),
        )
    entries = tuple(read_slides(source))
    return Source(str(source), entries, len(entries))


def read_inputs(
    source: Source, card: ModelCard, out: Path, *, settings: PredictSettings, track: Track = silent
) -> PredictionInputs:
    """Take the crops of a manifest, or cut slides at the mpp of the model."""
    if source.manifest is not None:
        return _of_manifest(source.manifest, card, settings)
    assert card.mpp is not None  # `read_source` checks it
    entries = source.slides
    reader = SlideReader(
        entries,
        out,
        detector=settings.detector,
        mpp_override=settings.mpp_override,
        stain=settings.stain,
        track=track,
    )
    done = extract_entries(
        entries,
        reader.proposals_folder if settings.regions is None else Path(settings.regions),
        out / CUT_FOLDER,
        settings=CropSettings(
            card.mpp,
            settings.margin,
            mpp_override=settings.mpp_override,
            region_options=settings.region_options,
            labels_matter=False,
            may_be_empty=reader.detector is not None,
        ),
        taxonomy=card.taxonomy,
        n_slides=source.n_slides,
        n_workers=settings.n_workers,
        min_parallel=MIN_PARALLEL,
        inspect=reader.inspect,
        track=track,
    )
    ours = done.manifest.table["slide_id"].isin({entry.slide_id for entry in entries})
    manifest = done.manifest.with_table(done.manifest.table[ours.to_numpy(dtype=bool)])
    opened = {one.slide_id for one in reader.facts}
    reported = {one.slide for one in reader.failures}
    return PredictionInputs(
        manifest=_with_stain(manifest, settings.stain),
        slides=tuple(reader.facts),
        regions={
            (slide_id, region.region_id): region
            for slide_id, regions in done.regions.items()
            for region in regions
        },
        scores=reader.scores,
        slides_without_regions=tuple(
            name for name in done.slides_without_regions if name in opened
        ),
        failures=(*reader.failures, *(one for one in done.failures if one.slide not in reported)),
        notes=(
            *reader.notes(),
            *_region_notes(done, reader.patients),
            *_cut_notes(done, opened, reader, card.mpp),
        ),
        detector=None if reader.detector is None else reader.detector.facts,
        patients=reader.patients,
        region_lines=(
            *done.region_lines(),
            *done.unknown_class_lines(),
            *_warning_lines(str(one) for found in done.scale_warnings.values() for one in found),
            *_look_alike_lines(done.manifest),
        ),
    )


def _region_notes(done: ExtractSummary, patients: Mapping[str, str | None]) -> list[Note]:
    """Return what a report must tell of the regions of each slide."""
    found = [
        (slide_id, note)
        for slide_id, counts in done.left_out.items()
        for note in left_out_notes(counts)
    ]
    return [
        Note(en=note.en, zh=note.zh, case=patients.get(slide_id) or slide_id or None)
        for slide_id, note in (*found, *done.notes)
    ]


def _cut_notes(
    done: ExtractSummary, opened: set[str], reader: SlideReader, mpp: float
) -> list[Note]:
    notes = [
        Note.of(
            "Slide {slide} is coarser than the model's {mpp} µm per pixel: its crops were enlarged "
            "and hold no finer detail.",
            case=reader.patients[name] or name,
            slide=name,
            mpp=f"{mpp:g}",
        )
        for name in done.enlarged_slides
    ]
    notes += [
        Note.of(one.text, case=reader.patients[name] or name, **one.values)
        for name, found in done.scale_warnings.items()
        for one in found
    ]
    if reader.detector is not None:  # slides without proposals have a note already
        return notes
    return notes + [
        Note.of(
            "No region lies on slide {slide}: it adds no glomerulus.",
            case=reader.patients[name] or name,
            slide=name,
        )
        for name in done.slides_without_regions
        if name in opened
    ]


def _checked_manifest(path: Path, card: ModelCard, settings: PredictSettings) -> Manifest:
    if settings.detector is not None:
        raise ConfigError(
            "a manifest lists crops, on which a detector cannot be run; leave out the detector",
            where=str(path),
        )
    manifest = read_manifest(path)
    raise_first([Problem(HALF_BOX, row) for row in half_boxes(manifest.table)], where=str(path))
    check_same_labels(manifest, card.taxonomy)
    if manifest.taxonomy != card.taxonomy:
        manifest = read_manifest(path, card.taxonomy)
    return manifest


def _of_manifest(
    manifest: Manifest, card: ModelCard, settings: PredictSettings
) -> PredictionInputs:
    patients = _patients_by_slide(manifest)
    manifest, repeats, failures = _counted_once(manifest)
    notes = (*_repeat_notes(repeats), *_mpp_notes(manifest, card.mpp))
    return PredictionInputs(
        _with_stain(manifest, settings.stain),
        notes=notes,
        failures=tuple(failures),
        patients=patients,
        region_lines=(
            *_warning_lines(note.en for note in notes),
            *_look_alike_lines(manifest),
        ),
    )


def _patients_by_slide(manifest: Manifest) -> dict[str, str | None]:
    table = manifest.table[["slide_id", "patient_id"]].dropna(subset="slide_id")
    return {
        str(slide): None if pd.isna(patient) else str(patient)
        for slide, patient in table.itertuples(index=False)
    }


def _counted_once(
    manifest: Manifest,
) -> tuple[Manifest, dict[str, list[tuple[str, str]]], list[Failure]]:
    """Leave one of the crops of a patient with the same pixels, or in one place on a slide.

    Returns
    -------
    manifest : Manifest
    repeats : dict
        By case, the image that is not counted and the one that is counted in its place.
    failures : list of Failure
        Crops around several others, which are counted.
    """
    table = manifest.table
    cases = table["patient_id"].fillna(table["slide_id"]).fillna(table["image_id"]).astype(str)
    names = table["image_id"].astype(str)
    counted: dict[str, str] = {}
    first: dict[tuple[str, str], str] = {}
    is_shared = cases.duplicated(keep=False)
    for name, case, path, shared in zip(
        names, cases, manifest.image_paths(), is_shared, strict=True
    ):
        digest = _pixel_digest(path) if shared else None
        if digest is not None and first.setdefault((case, digest), name) != name:
            counted[name] = first[case, digest]
    placed = table[table["slide_id"].notna() & table[list(BOX_COLUMNS)].notna().all(axis=1)]
    placed = placed[~placed["image_id"].isin(list(counted))]
    failures: list[Failure] = []
    for (_, slide), rows in placed.groupby([cases[placed.index], placed["slide_id"]], sort=False):
        single = count_once(
            [_crop_region(row) for _, row in rows.iterrows()],
            labels_matter=False,
            way_out="remove its row from the manifest",
        )
        counted |= {one.region_id: kept.region_id for one, kept in single.repeats}
        failures += [Failure(str(slide), one.region_id, reason) for one, reason in single.refused]
    repeats: dict[str, list[tuple[str, str]]] = {}
    for name, case in zip(names, cases, strict=True):
        if name in counted:
            repeats.setdefault(case, []).append((name, counted[name]))
    gone = {*counted, *(one.region for one in failures)}
    return manifest.with_table(table[~names.isin(gone)]), repeats, failures


def _pixel_digest(path: Path) -> str | None:
    """Return a digest of size and pixels; None of an image that `predict_images` will name."""
    try:
        pixels = read_image(path)
    except ImageFileError:
        return None
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


def _crop_region(row: pd.Series) -> Region:
    x, y, width, height = (int(row[name]) for name in BOX_COLUMNS)
    return Region.from_box(str(row["image_id"]), Box(x, y, width, height))


def _repeat_notes(repeats: Mapping[str, Sequence[tuple[str, str]]]) -> list[Note]:
    return [
        Note.of(
            "Images with the pixels of another, or in its place on the slide, that are counted "
            "once, as that one: {n} ({pairs}).",
            case=case,
            n=len(pairs),
            pairs=repeats_text(pairs),
        )
        for case, pairs in repeats.items()
    ]


def _warning_lines(warnings: Iterable[str]) -> list[str]:
    """Return the first warnings as lines, and how many more the case folder has."""
    lines = [f"warning: {one}" for one in warnings]
    n_more = len(lines) - MOST_WARNINGS
    return lines[:MOST_WARNINGS] + (
        [f"{n_more} more warnings are in {CASE_FILE}"] if n_more > 0 else []
    )


def _look_alike_lines(manifest: Manifest) -> list[str]:
    """Return a warning for each group of patient ids that divide the glomeruli of one patient."""
    return [
        f"warning: {' and '.join(map(repr, names))} are predicted as different patients, though "
        "their ids look alike; give one patient one id"
        for names in look_alike_patients(manifest.table)
    ]


def _is_manifest(source: Path) -> bool:
    if source.suffix.lower() == ".parquet":
        return True
    if source.suffix.lower() != ".csv" or not source.is_file():
        return False
    return not is_slides_table(source)


def _with_stain(manifest: Manifest, stain: str | None) -> Manifest:
    if stain is None:
        return manifest
    table = manifest.table.assign(stain=manifest.table["stain"].fillna(stain))
    return manifest.with_table(table)


def _mpp_notes(manifest: Manifest, mpp: float | None) -> tuple[Note, ...]:
    """Return a note for each case with crops at another scale than the model's."""
    table = manifest.table
    if mpp is None or table["mpp"].dropna().empty:
        return (Note.of("Whether the crops have the model's micrometres per pixel is not known."),)
    is_other = (table["mpp"].astype("float64") / mpp - 1).abs() > MPP_TOLERANCE
    cases = table["patient_id"].fillna(table["slide_id"]).fillna(table["image_id"])
    counted = is_other.groupby(cases, sort=False).agg(["sum", "size"])
    return tuple(
        Note.of(
            "{n_other} of {n} crops are not at the model's {mpp} µm per pixel.",
            case=str(case),
            n_other=n_other,
            n=n,
            mpp=f"{mpp:g}",
        )
        for case, n_other, n in counted.itertuples()
        if n_other
    )
