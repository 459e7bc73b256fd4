"""Train a glomerulus detector on slides with drawn regions: cut tiles, split, train, calibrate.

A tile is labelled by what lies at its centre, so that the network, moved over a slide, draws a map
of the glomeruli. Places between the core of a glomerulus and its surroundings are left out: the
map need not be sharp there.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest, write_manifest
from glomerulab.cohort.slides_table import SlideEntry, read_slides, regions_on
from glomerulab.cohort.splits import split_by_patient
from glomerulab.errors import OutputError, RegionError
from glomerulab.geometry import Box, Point, Region
from glomerulab.i18n.catalogue import translate
from glomerulab.images import write_image
from glomerulab.inference.detector import DetectorCard, fit_detector
from glomerulab.pipeline.crop_plan import Failure, check_regions, crop_row
from glomerulab.pipeline.region_checks import glass_note, regions_on_glass
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile
from glomerulab.slides.regions.features import DEFAULT_OPTIONS, RegionOptions
from glomerulab.slides.regions.polygons import contains, scaled
from glomerulab.slides.regions.selection import left_out_notes, unmatched_notes
from glomerulab.slides.scale import region_size_warning
from glomerulab.slides.slide import Slide, open_slide
from glomerulab.stain.optical_density import tissue_mask
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.config import TrainConfig, read_config
from glomerulab.training.run import train

__all__ = ["DETECTOR_TAXONOMY", "TileSettings", "check_parts", "cut_tiles", "train_detector"]

DETECTOR_TAXONOMY = Taxonomy(
    "detector",
    (
        Label(
            id="glomerulus",
            name="Glomerulus",
            name_zh=translate("Glomerulus", "zh"),
            excludes=("other",),
        ),
        Label(id="other", name="Other tissue", name_zh=translate("Other tissue", "zh")),
    ),
)

CORE = 0.5
"""A tile is a glomerulus if its centre lies in the outline shrunk by this factor."""
OUTSIDE = 1.15
"""A tile is other tissue if its centre lies outside every outline enlarged by this factor."""
RING = 1.8
"""Tissue just outside is the hardest: a share of the tiles comes from outlines enlarged so far."""
N_EACH = 4
"""Tiles per glomerulus in its core, in its ring, and anywhere else."""
LEAST_ELSEWHERE = 16
N_TRIES = 200
TISSUE_MPP = 16.0

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How tiles are cut."""

    mpp: float = 4.0
    """Micrometres per pixel: coarse, since a glomerulus is recognised by its shape."""
    side_px: int = 64
    """Covers a glomerulus of 200 µm and its surroundings."""
    seed: int = 0
    region_options: RegionOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class TilesCut:
    """The tiles, and the slides that could not be used."""

    manifest: Manifest
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedDetector:
    """A detector's run folder and card, and the slides that could not be used."""

    run: Path
    card: DetectorCard
    failures: tuple[Failure, ...]


def train_detector(
    slides: Path,
    regions: Path,
    out: Path,
    *,
    settings: dict[str, object],
    region_options: RegionOptions | None = None,
    seed: int = 0,
    n_workers: int = 1,
    track: Track = silent,
    echo: Callable[[str], None] = lambda _: None,
) -> TrainedDetector:
    """Train a detector on slides whose glomeruli are all drawn, or continue its training."""
    entries = read_slides(slides)
    config = _config(out, settings | {"seed": seed})
    size = TileSettings(
        side_px=config.model.input_size or TileSettings().side_px,
        seed=config.seed,
        region_options=region_options or RegionOptions(),
    )
    folder = config.manifest.parent
    cut = cut_tiles(entries, regions, folder, settings=size, n_workers=n_workers, track=track)
    tiles = split_by_patient(cut.manifest, seed=config.seed)
    write_manifest(tiles, config.manifest)
    for line in (*cut.notes, *_tile_counts(tiles)):
        echo(line)
    check_parts(tiles, regions)
    run = train(config, resume=True, track=track, echo=echo)
    card = fit_detector(
        run, tiles, entries, regions, region_options=size.region_options, track=track
    )
    return TrainedDetector(run, card, cut.failures)


def cut_tiles(
    entries: Sequence[SlideEntry],
    regions_path: Path,
    out: Path,
    *,
    settings: TileSettings | None = None,
    n_workers: int = 1,
    track: Track = silent,
) -> TilesCut:
    """Cut tiles from slides; tiles that an earlier run cut of the same slides are used again."""
    settings = settings or TileSettings()
    check_regions(regions_path, n_slides=len(entries))
    make_folder(out)
    _continue_or_refuse(out, _digest(entries, regions_path, settings))
    path = out / "manifest.csv"
    if path.is_file():
        return TilesCut(read_manifest(path, DETECTOR_TAXONOMY), ())
    cut = partial(_cut_slide, regions_path=regions_path, out=out, settings=settings)
    rows: dict[str, list[dict[str, object]]] = {}
    failures: list[Failure] = []
    notes: list[str] = []
    classes: Counter[str] = Counter()
    with closing(map_outcomes(cut, entries, n_workers=n_workers)) as outcomes:
        for outcome in track(outcomes, "Cutting tiles", len(entries)):
            if outcome.error is not None:
                failures.append(Failure(outcome.item.slide_id, "", str(outcome.error)))
            else:
                assert outcome.value is not None
                rows[outcome.item.slide_id], failed, noted, found = outcome.value
                failures += failed
                notes += noted
                classes += found
    unmatched = [note.en for note in unmatched_notes(classes, settings.region_options)]
    notes[:0] = unmatched
    table = pd.DataFrame([row for entry in entries for row in rows.get(entry.slide_id, ())])
    if table.empty or not (table["glomerulus"] == 1).any():
        reason = failures[0].reason if failures else "no region lies on them"
        reason = ". ".join((reason, *unmatched))
        raise RegionError(f"the slides have no glomerulus: {reason}", where=str(regions_path))
    manifest = manifest_from_rows(table, folder=out, taxonomy=DETECTOR_TAXONOMY)
    if not failures:  # a slide that failed may be readable the next time
        write_manifest(manifest, path)
    return TilesCut(manifest, tuple(failures), tuple(notes))


def _config(out: Path, overrides: dict[str, object]) -> TrainConfig:
    overrides = overrides | {"manifest": out / "tiles" / "split.csv", "out": out}
    with resources.as_file(resources.files("glomerulab.training") / "detector.toml") as path:
        return read_config(path, overrides)


def check_parts(tiles: Manifest, regions: Path) -> None:
    """Raise a `RegionError` before the training if a part that needs glomeruli has none."""
    for name in ("train", "validation"):
        part = tiles.part(name).table
        if not (part["glomerulus"] == 1).any():
            slides = ", ".join(sorted(set(part["slide_id"].astype(str)))) or "it has no slide"
            raise RegionError(
                f"no region lies on the slides of the {name} part ({slides}); give their regions, "
                "more patients, or another --seed, which divides the patients otherwise",
                where=str(regions),
            )


def _tile_counts(tiles: Manifest) -> Iterator[str]:
    """Yield one line per part of the split."""
    counts = tiles.table.groupby("split").agg(
        n=("image_id", "size"), glomeruli=("glomerulus", "sum"), slides=("slide_id", "nunique")
    )
    for name, row in counts.iterrows():
        yield f"{name}: {row['n']} tiles of {row['slides']} slides, {row['glomeruli']} glomerulus"


def _cut_slide(
    entry: SlideEntry, *, regions_path: Path, out: Path, settings: TileSettings
) -> tuple[list[dict[str, object]], list[Failure], list[str], Counter[str]]:
    """Cut the tiles of one slide; return their rows, the regions that failed, notes, classes."""
    options = settings.region_options
    with open_slide(entry.path, mpp_override=entry.mpp) as slide:
        found = regions_on(entry, regions_path, slide, options)
        regions = found.regions
        notes = [*left_out_notes(found.left_out), *found.notes]
        if on_glass := regions_on_glass(slide, regions, options):
            notes.append(glass_note(entry.slide_id, on_glass))
        folder = make_folder(out / "tiles" / safe_name(entry.slide_id))
        rows: list[dict[str, object]] = []
        places = _places(slide, regions, _rng(entry.slide_id, settings.seed))
        for number, (label, (x, y)) in enumerate(places):
            box = _box(slide, x, y, settings)
            image_id = f"{safe_name(entry.slide_id)}-{number:05d}"
            image = folder / f"{image_id}.png"
            write_image(slide.read_region(box, mpp=settings.mpp), image)
            path = image.relative_to(out)
            rows.append(
                crop_row(entry, slide, box, image_id=image_id, path=path, mpp=settings.mpp)
                | {name: int(label == name) for name in DETECTOR_TAXONOMY.label_ids}
            )
        failures = [Failure(entry.slide_id, one.region_id, one.reason) for one in found.invalid]
        told = [f"{entry.slide_id}: {note.en}" for note in notes]
        sizes = region_size_warning(entry.slide_id, regions, slide.mpp_xy)
        doubts = [*slide.scale_warnings, *([] if sizes is None else [sizes])]
        if not regions:
            told.append(f"{entry.slide_id}: no region lies on it, so all of it is other tissue")
        return rows, failures, told + [f"warning: {doubt}" for doubt in doubts], found.classes


def _places(
    slide: Slide, regions: Sequence[Region], rng: np.random.Generator
) -> Iterator[tuple[str, Point]]:
    """Yield the label and the centre of each tile, in level-0 pixels."""
    tissue = _Tissue(slide)
    outlines = [region.polygon for region in regions]
    wide = [scaled(outline, OUTSIDE) for outline in outlines]
    for outline in outlines:
        core, ring = scaled(outline, CORE), scaled(outline, RING)
        for point in _sample_inside(core, rng)[:N_EACH]:
            yield "glomerulus", point
        around = _sample_inside(ring, rng)
        free = [point for point in around if not _in_any(wide, point) and tissue.at(point)]
        for point in free[:N_EACH]:
            yield "other", point
    anywhere = [point for point in tissue.sample(rng) if not _in_any(wide, point)]
    for point in anywhere[: max(N_EACH * len(outlines), LEAST_ELSEWHERE)]:
        yield "other", point


class _Tissue:
    """A coarse tissue mask of a slide."""

    def __init__(self, slide: Slide) -> None:
        pixels = slide.read_region(Box(0, 0, *slide.dimensions), mpp=TISSUE_MPP)
        self._mask = tissue_mask(pixels, np.array(slide.background, dtype=np.float64))
        height, width = self._mask.shape
        self._step = slide.dimensions[0] / width, slide.dimensions[1] / height

    def at(self, point: Point) -> bool:
        """Whether a point lies on tissue."""
        column, row = int(point[0] // self._step[0]), int(point[1] // self._step[1])
        height, width = self._mask.shape
        return 0 <= row < height and 0 <= column < width and bool(self._mask[row, column])

    def sample(self, rng: np.random.Generator) -> list[Point]:
        """Return random points on tissue."""
        rows, columns = np.nonzero(self._mask)
        if not len(rows):
            return []
        chosen = rng.integers(len(rows), size=max(N_TRIES, 40 * LEAST_ELSEWHERE))
        across, down = rng.random((2, len(chosen)))
        xs = (columns[chosen] + across) * self._step[0]
        ys = (rows[chosen] + down) * self._step[1]
        return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _sample_inside(outline: Sequence[Point], rng: np.random.Generator) -> list[Point]:
    """Return random points inside an outline."""
    corners = np.asarray(outline)
    points = rng.uniform(corners.min(axis=0), corners.max(axis=0), (N_TRIES, 2))
    inside: Points = points[contains(outline, points)]
    return [(float(x), float(y)) for x, y in inside]


def _in_any(outlines: Sequence[Sequence[Point]], point: Point) -> bool:
    return any(bool(contains(outline, [point])[0]) for outline in outlines)


def _box(slide: Slide, x: float, y: float, settings: TileSettings) -> Box:
    across, down = (settings.side_px * settings.mpp / own for own in slide.mpp_xy)
    return Box(round(x - across / 2), round(y - down / 2), round(across), round(down))


def _rng(slide_id: str, seed: int) -> np.random.Generator:
    # Seeded by the slide id, so that a slide's tiles do not depend on the other slides.
    name = int.from_bytes(hashlib.sha256(slide_id.encode()).digest()[:4])
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(name,)))


def _digest(entries: Sequence[SlideEntry], regions_path: Path, settings: TileSettings) -> str:
    """Return a hash of the slides, regions and settings."""
    files = [regions_path] if regions_path.is_file() else sorted(regions_path.iterdir())
    slides = [
        (one.slide_id, one.patient_id, one.stain, one.mpp, one.further, _n_bytes(one.path))
        for one in entries
    ]
    size = asdict(settings)
    if settings.region_options == RegionOptions():  # tiles of earlier versions go on
        del size["region_options"]
    digest = hashlib.sha256(repr((size, slides)).encode())
    for path in files:
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _n_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _continue_or_refuse(out: Path, digest: str) -> None:
    file = SettingsFile(out / "tiles.json", dump=json.dumps)
    then, now = file.read(), {"mark": digest}
    if then is not None and then != now:
        raise OutputError(
            "the tiles in this folder were cut from other slides, regions or settings; choose "
            "another --out",
            where=str(out),
        )
    file.write(now)
