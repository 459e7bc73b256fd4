"""Slides with a biopsy core each: rendering in memory, and a cohort on disk."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from glomerulab.geometry import Point, Region
from glomerulab.images import RgbImage
from glomerulab.phantom.biopsy import biopsy_scene, draw_scarring
from glomerulab.phantom.cohort import (
    Task,
    check_cohort,
    check_mpp,
    draw_kinds,
    render_rows,
    write_truth,
)
from glomerulab.phantom.glomerulus import Glomerulus
from glomerulab.phantom.scene import Painting, Scene, paint
from glomerulab.phantom.section import Section, cohort_section, expose
from glomerulab.phantom.stains import Stain, recompose
from glomerulab.phantom.truth import STRUCTURES, outlines, structure_regions, true_shares
from glomerulab.runtime.files import StrPath, atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions

__all__ = ["STRUCTURES", "PhantomSlide", "render_slide", "write_phantom_slides"]

TILE_PX = 512

KIND_STREAM, SLIDE_STREAM, NOISE_STREAM, SCAR_STREAM = 4, 5, 6, 7

_SLIDE_COLUMNS = ("slide_path", "slide_id", "patient_id", "stain", "mpp", "scanner", "synthetic")


@dataclass(frozen=True, slots=True, eq=False)
class PhantomSlide:
    """A synthetic slide; not a clinical image, and not to be presented as one."""

    pixels: RgbImage
    lesion_bits: npt.NDArray[np.uint8]
    """1 mesangial, 2 sclerosis, 4 crescent; shape (H, W)."""
    masks: npt.NDArray[np.uint16]
    """Structures of every pixel: bit k stands for `STRUCTURES` [k]; shape (H, W)."""
    objects: npt.NDArray[np.int32]
    """Number of the tubule, vessel or glomerulus of every pixel, 0 for none; shape (H, W)."""
    glomeruli: tuple[Glomerulus, ...]
    """First those with labels, then grazed and globally sclerosed ones."""
    n_labelled: int
    section: Section
    mpp: float

    def regions(self, prefix: str) -> list[Region]:
        """Return the glomeruli with labels in level-0 pixels, named `prefix`-g01 and so on."""
        return [
            Region(f"{prefix}-g{number:02d}", self._outline(number), one.lesions.labels)
            for number, one in enumerate(self.glomeruli[: self.n_labelled], start=1)
        ]

    def _outline(self, number: int) -> tuple[Point, ...]:
        """Return Bowman's capsule, or what the edge of the tissue left of the glomerulus."""
        one = self.glomeruli[number - 1]
        if not one.form.is_cut:
            return tuple((x / self.mpp, y / self.mpp) for x, y in one.outline())
        largest = max(outlines(self.objects == number), key=lambda piece: piece.area)
        return tuple(largest.simplify(0.5).exterior.coords[:-1])

    def structures(self, prefix: str) -> list[Region]:
        """Return all structures in level-0 pixels; see `structure_regions`."""
        return structure_regions(self.masks, self.objects, prefix, mpp=self.mpp)

    def shares(self) -> dict[str, Any]:
        """Return the true sizes of the structures; see `true_shares`."""
        return true_shares(self.masks, self.objects, mpp=self.mpp)


@dataclass(frozen=True, slots=True)
class _SlideTask(Task):
    kinds: tuple[str, ...]

    @property
    def slide_id(self) -> str:
        return f"{self.patient_id}-s{self.number + 1:03d}-{self.stain.lower()}"


def write_phantom_slides(
    out: StrPath,
    *,
    n_patients: int = 6,
    slides_per_patient: int = 1,
    n_glomeruli: int = 8,
    seed: int = 0,
    mpp: float = 0.5,
    stains: Sequence[Stain] = ("HE", "PAS"),
    n_workers: int = 1,
    track: Track = silent,
) -> Path:
    """Render a cohort of slides.

    Parameters
    ----------
    out : Path
        Gets ``slides.csv``, ``slides/`` (pyramidal TIFF), ``regions/`` (QuPath GeoJSON of the
        glomeruli with their labels), ``structures/`` (QuPath GeoJSON of all structures, with their
        ids as classification), ``structures.csv`` (their true sizes), ``masks/`` (lesion bits as
        PNG) and ``truth/`` (JSON).
    n_patients, slides_per_patient, n_glomeruli : int
        At least 1 each; `n_glomeruli` is per slide, of those with labels. A slide also has
        glomeruli that the section only grazes and globally sclerosed ones, which have none.
    seed : int, default 0
        Same seed, same pixels, whatever the number of workers.
    mpp : float, default 0.5
        Micrometres per pixel of level 0.
    stains : sequence of {"HE", "PAS"}
        Successive slides alternate between the stains.
    n_workers : int, default 1
        Processes.

    Returns
    -------
    Path
        The slides table.
    """
    out = Path(out)
    tasks = _tasks(n_patients, slides_per_patient, n_glomeruli, seed, stains)
    for name in ("slides", "regions", "structures", "masks", "truth"):
        make_folder(out / name)
    write = partial(_write_slide, out=out, seed=seed, mpp=mpp)
    table = render_rows(
        write, tasks, "Rendering synthetic slides", n_workers=n_workers, track=track
    )
    of_slide = ["slide_id", *(name for name in table if name not in _SLIDE_COLUMNS)]
    _write_csv(table[of_slide], out / "structures.csv")
    _write_csv(table[list(_SLIDE_COLUMNS)], out / "slides.csv")
    return out / "slides.csv"


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def render_slide(
    kinds: Sequence[str],
    section: Section,
    seed: int | np.random.SeedSequence,
    *,
    mpp: float = 0.5,
    scarred: float | None = None,
) -> PhantomSlide:
    """Render one slide in memory.

    Parameters
    ----------
    kinds : sequence of str
        Of `glomerulab.phantom.glomerulus.KINDS`, one per glomerulus with labels.
    mpp : float, default 0.5
        Micrometres per pixel.
    scarred : float, optional
        Share of the cortex with fibrosis and atrophied tubules, 0 to 1; by default drawn.
    """
    if not kinds:
        raise ValueError("a slide needs at least one glomerulus")
    check_mpp(mpp)
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    rng = np.random.default_rng(sequence)
    scarred = draw_scarring(rng) if scarred is None else scarred
    scene, size_um = biopsy_scene(kinds, section, rng, scarred=scarred)
    width, height = (math.ceil(side / mpp) for side in size_um)
    slide = PhantomSlide(
        pixels=np.empty((height, width, 3), np.uint8),
        lesion_bits=np.empty((height, width), np.uint8),
        masks=np.empty((height, width), np.uint16),
        objects=np.empty((height, width), np.int32),
        glomeruli=scene.glomeruli,
        n_labelled=len(kinds),
        section=section,
        mpp=mpp,
    )
    for upper in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            lower, right = min(upper + TILE_PX, height), min(left + TILE_PX, width)
            key = (*sequence.spawn_key, NOISE_STREAM, upper, left)
            rng = np.random.default_rng(np.random.SeedSequence(sequence.entropy, spawn_key=key))
            pixels, view, inner = _tile(scene, section, (left, upper, right, lower), mpp, rng)
            tile = np.s_[upper:lower, left:right]
            slide.pixels[tile] = pixels[inner]
            slide.lesion_bits[tile] = view.lesion_bits[inner]
            slide.masks[tile] = view.masks[inner]
            slide.objects[tile] = view.objects[inner]
    return slide


def _tile(
    scene: Scene,
    section: Section,
    box: tuple[int, int, int, int],
    mpp: float,
    rng: np.random.Generator,
) -> tuple[RgbImage, Painting, tuple[slice, slice]]:
    """Render one tile with a margin for the blur; return it, its truth, and where it lies."""
    left, upper, right, lower = box
    halo = math.ceil(3 * section.scanner.blur_um / mpp) + 1
    shape = (lower - upper + 2 * halo, right - left + 2 * halo)
    view = paint(
        scene,
        section,
        left_um=(left - halo) * mpp,
        upper_um=(upper - halo) * mpp,
        shape=shape,
        mpp=mpp,
    )
    light = recompose(view.concentrations, section.stain_matrix, white=1.0)
    # A line scanner shades no corners, and the pyramid is compressed when written.
    scanner = replace(section.scanner, shading=0.0, black_border=0.0, jpeg_quality=None)
    pixels = expose(light, scanner, rng, mpp=mpp)
    inner = slice(halo, shape[0] - halo), slice(halo, shape[1] - halo)
    return pixels, view, inner


def _tasks(
    n_patients: int, slides_per_patient: int, n_glomeruli: int, seed: int, stains: Sequence[Stain]
) -> list[_SlideTask]:
    counts = {
        "patients": n_patients,
        "slides per patient": slides_per_patient,
        "glomeruli per slide": n_glomeruli,
    }
    check_cohort(counts, stains)
    n_slides = n_patients * slides_per_patient
    kinds = draw_kinds(n_slides * n_glomeruli, seed=seed, stream=KIND_STREAM)
    return [
        _SlideTask(
            number,
            number // slides_per_patient,
            stains[number % len(stains)],
            tuple(kinds[number * n_glomeruli : (number + 1) * n_glomeruli]),
        )
        for number in range(n_slides)
    ]


def _write_slide(task: _SlideTask, *, out: Path, seed: int, mpp: float) -> dict[str, Any]:
    """Render one slide, write its files, and return its row."""
    section = cohort_section(task.patient, task.stain, seed)
    sequence = np.random.SeedSequence(seed, spawn_key=(SLIDE_STREAM, task.number))
    of_patient = np.random.SeedSequence(seed, spawn_key=(SCAR_STREAM, task.patient))
    scarred = draw_scarring(np.random.default_rng(of_patient))
    slide = render_slide(task.kinds, section, sequence, mpp=mpp, scarred=scarred)
    name = f"slides/{task.slide_id}.tif"
    quality = section.scanner.jpeg_quality or 95
    write_pyramid(slide.pixels, out / name, mpp=mpp, jpeg_quality=max(quality, 90))
    regions = slide.regions(task.slide_id)
    write_regions(regions, out / "regions" / f"{task.slide_id}.geojson")
    structures = slide.structures(task.slide_id)
    write_regions(structures, out / "structures" / f"{task.slide_id}.geojson")
    with atomic_write(out / "masks" / f"{task.slide_id}.png") as temporary:
        Image.fromarray(slide.lesion_bits).save(temporary, compress_level=1)
    write_truth(out / "truth" / f"{task.slide_id}.json", _truth(slide, regions))
    return {
        "slide_path": name,
        "slide_id": task.slide_id,
        "patient_id": task.patient_id,
        "stain": task.stain,
        "mpp": mpp,
        "scanner": section.scanner.name,
        "synthetic": 1,
        **slide.shares(),
    }


def _truth(slide: PhantomSlide, regions: Sequence[Region]) -> dict[str, Any]:
    section = slide.section
    return {
        "stain": section.stain,
        "mpp": slide.mpp,
        "stain_matrix": section.stain_matrix.tolist(),
        "scanner": asdict(section.scanner),
        "thickness": section.thickness,
        "lesion_bits": {"mspgn": 1, "fsg": 2, "cgn": 4},
        "glomeruli": [
            {
                "region_id": region.region_id,
                "labels": one.lesions.labels,
                "severity": asdict(one.lesions),
                "crescent_share": one.crescent_share,
                "mesangial_cells": one.mesangial_cells,
            }
            for region, one in zip(regions, slide.glomeruli, strict=False)
        ],
    }
