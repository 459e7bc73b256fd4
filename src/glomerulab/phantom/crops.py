"""Crops with one glomerulus each: rendering in memory, and a cohort on disk."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.geometry import Point
from glomerulab.images import RgbImage, write_image
from glomerulab.phantom.cohort import (
    Task,
    check_cohort,
    check_mpp,
    draw_kinds,
    render_rows,
    write_truth,
)
from glomerulab.phantom.cortex import draw_cortex
from glomerulab.phantom.glomerulus import Glomerulus, Lesions, draw_glomerulus, draw_lesions
from glomerulab.phantom.glomerulus_paint import CGN_BIT, FSG_BIT, MSPGN_BIT
from glomerulab.phantom.scene import Painting, Scene, paint
from glomerulab.phantom.section import Section, cohort_section, expose
from glomerulab.phantom.stains import Stain, StainMatrix, recompose
from glomerulab.runtime.files import StrPath, atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.taxonomy import load_taxonomy

__all__ = [
    "PhantomCrop",
    "example_crop",
    "render_crop",
    "write_phantom_crops",
]

LESION_BITS = {"mspgn": MSPGN_BIT, "fsg": FSG_BIT, "cgn": CGN_BIT}
MARGIN_UM = 45.0
"""Tissue drawn beyond the view, so that tubules at its edge are complete."""


@dataclass(frozen=True, slots=True, eq=False)
class PhantomCrop:
    """A synthetic crop; not a clinical image, and not to be presented as one."""

    pixels: RgbImage
    labels: tuple[str, ...]
    """Ids of the taxonomy ``paper``."""
    lesions: Lesions
    stain: Stain
    mpp: float
    stain_matrix: StainMatrix
    """True stain matrix, (3, 2), unit columns."""
    white: tuple[float, float, float]
    concentrations: npt.NDArray[np.float32]
    """True concentrations before blur, tone and noise, (2, H, W)."""
    structure: npt.NDArray[np.uint8]
    """`Material` of every pixel, (H, W)."""
    masks: dict[str, npt.NDArray[np.bool_]]
    """Area of each lesion, (H, W) per label; only labels that have an area."""
    outline: tuple[Point, ...]
    """Bowman's capsule, (x, y) in pixels."""
    crescent_share: float
    """Share of Bowman's circumference under the crescent, 0 to 1."""
    mesangial_cells: tuple[int, ...]
    """Mesangial nuclei of each mesangial area."""

    def ideal(
        self, stain_matrix: StainMatrix | None = None, *, white: npt.ArrayLike | None = None
    ) -> RgbImage:
        """Recompose without blur, noise or compression, with this or another stain matrix.

        Parameters
        ----------
        stain_matrix : ndarray of float, shape (3, 2), optional
            By default the crop's own.
        white : array_like, optional
            By default the crop's own.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
        """
        matrix = self.stain_matrix if stain_matrix is None else stain_matrix
        light = recompose(self.concentrations, matrix, white=self.white if white is None else white)
        return np.rint(light).clip(0, 255).astype(np.uint8)


def render_crop(
    kind: str | Lesions,
    section: Section,
    seed: int | np.random.SeedSequence,
    *,
    size: int = 512,
    mpp: float = 0.5,
) -> PhantomCrop:
    """Render one crop."""
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    check_mpp(mpp)
    rng = np.random.default_rng(seed)
    lesions = draw_lesions(kind, rng) if isinstance(kind, str) else kind
    side = size * mpp
    scene = _crop_scene(lesions, section, rng, side)
    left, upper = -side / 2, -side / 2
    view = paint(scene, section, left_um=left, upper_um=upper, shape=(size, size), mpp=mpp)
    light = recompose(view.concentrations, section.stain_matrix, white=1.0)
    glomerulus = scene.glomeruli[0]
    return PhantomCrop(
        pixels=expose(light, section.scanner, rng, mpp=mpp),
        labels=lesions.labels,
        lesions=lesions,
        stain=section.stain,
        mpp=mpp,
        stain_matrix=section.stain_matrix,
        white=section.scanner.white,
        concentrations=view.concentrations,
        structure=view.structure,
        masks=_lesion_masks(view, lesions),
        outline=tuple(((x - left) / mpp, (y - upper) / mpp) for x, y in glomerulus.outline()),
        crescent_share=glomerulus.crescent_share,
        mesangial_cells=glomerulus.mesangial_cells,
    )


def example_crop(
    stain: Stain = "HE", kind: str = "normal", *, seed: int = 0, size: int = 128, mpp: float = 1.6
) -> PhantomCrop:
    """Return one crop of a random section, for examples and tests.

    Examples
    --------
    >>> crop = example_crop("PAS", "fsg", seed=1)
    >>> crop.pixels.shape, crop.labels
    ((128, 128, 3), ('fsg',))
    """
    return render_crop(kind, cohort_section(0, stain, seed), seed, size=size, mpp=mpp)


def _lesion_masks(view: Painting, lesions: Lesions) -> dict[str, npt.NDArray[np.bool_]]:
    """Return one bool (H, W) mask per lesion that is present."""
    return {
        label: (view.lesion_bits & LESION_BITS[label]) > 0
        for label in lesions.labels
        if label in LESION_BITS
    }


def _crop_scene(
    lesions: Lesions, section: Section, rng: np.random.Generator, side_um: float
) -> Scene:
    """Place the glomerulus near the middle, with tissue around it; in a fifth, the core's edge."""
    radius = section.radius_um * float(rng.uniform(0.9, 1.1))
    shift = rng.uniform(-0.04, 0.04, 2) * side_um
    glomerulus: Glomerulus = draw_glomerulus(
        lesions, rng, place_um=(float(shift[0]), float(shift[1])), radius_um=radius
    )
    reach = side_um / 2 + MARGIN_UM
    holes = np.array([[glomerulus.x_um, glomerulus.y_um, glomerulus.capsule_um.mean()]])
    cortex = draw_cortex(
        (-reach, -reach, reach, reach),
        holes,
        rng,
        poles=[] if glomerulus.pole is None else [glomerulus.pole],
        tubule_scale=section.tubule_scale,
    )
    half_width = 3 * reach
    edge = rng.uniform(1.15, 1.5) * radius if rng.random() < 0.2 else 4 * reach
    turn = rng.uniform(0, 2 * math.pi)
    away = half_width - edge
    x, y = away * math.cos(turn), away * math.sin(turn)
    along_x, along_y = -math.sin(turn) * 20 * reach, math.cos(turn) * 20 * reach
    cores = np.array(
        [[x - along_x, y - along_y, x + along_x, y + along_y, half_width]], dtype=np.float32
    )
    return Scene((glomerulus,), cortex, cores)


# First numbers of the spawn keys, distinct from those in `section` and `slides`.
KIND_STREAM, CROP_STREAM = 2, 3


@dataclass(frozen=True, slots=True)
class _CropTask(Task):
    kind: str

    @property
    def slide_id(self) -> str:
        return f"{self.patient_id}-{self.stain.lower()}"

    @property
    def image_id(self) -> str:
        return f"{self.slide_id}-{self.number + 1:05d}"


def write_phantom_crops(
    out: StrPath,
    *,
    n_patients: int = 12,
    n_per_patient: int = 10,
    seed: int = 0,
    size: int = 512,
    mpp: float = 0.5,
    stains: Sequence[Stain] = ("HE", "PAS"),
    concentrations: bool = False,
    n_workers: int = 1,
    track: Track = silent,
) -> Path:
    """Render a cohort of crops.

    Parameters
    ----------
    out : Path
        Gets ``manifest.csv``, ``images/``, ``masks/`` (one PNG per image and lesion) and
        ``truth/`` (one JSON per image, and one npz if `concentrations`).
    n_patients, n_per_patient : int
        At least 1 each.
    seed : int, default 0
        Same seed, same bytes, whatever the number of workers.
    size : int, default 512
        Side of a crop in pixels.
    mpp : float, default 0.5
        Micrometres per pixel.
    stains : sequence of {"HE", "PAS"}
        The crops of a patient take turns.
    concentrations : bool, default False
        Also write the true concentrations: 2 MB per crop of 512 x 512 before compression.
    n_workers : int, default 1
        Processes.

    Returns
    -------
    Path
        The manifest.
    """
    out = Path(out)
    check_cohort({"patients": n_patients, "glomeruli per patient": n_per_patient}, stains)
    tasks = _tasks(n_patients, n_per_patient, seed, stains)
    for name in ("images", "masks", "truth"):
        make_folder(out / name)
    write = partial(
        _write_crop, out=out, seed=seed, size=size, mpp=mpp, concentrations=concentrations
    )
    table = render_rows(write, tasks, "Rendering synthetic crops", n_workers=n_workers, track=track)
    path = out / "manifest.csv"
    write_manifest(manifest_from_rows(table, folder=out, taxonomy=load_taxonomy("paper")), path)
    return path


def _tasks(
    n_patients: int, n_per_patient: int, seed: int, stains: Sequence[Stain]
) -> list[_CropTask]:
    kinds = draw_kinds(n_patients * n_per_patient, seed=seed, stream=KIND_STREAM)
    return [
        _CropTask(n, n // n_per_patient, stains[n % n_per_patient % len(stains)], kind)
        for n, kind in enumerate(kinds)
    ]


def _write_crop(
    task: _CropTask, *, out: Path, seed: int, size: int, mpp: float, concentrations: bool
) -> dict[str, Any]:
    """Render one crop, write its files, and return its row."""
    section = cohort_section(task.patient, task.stain, seed)
    sequence = np.random.SeedSequence(seed, spawn_key=(CROP_STREAM, task.number))
    crop = render_crop(task.kind, section, sequence, size=size, mpp=mpp)
    _delete_truth(out, task.image_id)
    image_path = f"images/{task.image_id}.png"
    write_image(crop.pixels, out / image_path)
    for label, mask in crop.masks.items():
        if not mask.any():  # the lesion lies outside the crop, and `explain` refuses a black mask
            continue
        grey = np.repeat(mask[..., np.newaxis].astype(np.uint8) * 255, 3, axis=2)
        write_image(grey, out / "masks" / f"{task.image_id}.{label}.png")
    write_truth(out / "truth" / f"{task.image_id}.json", _truth(crop, section))
    if concentrations:
        with atomic_write(out / "truth" / f"{task.image_id}.npz") as temporary:
            np.savez_compressed(
                temporary, concentrations=crop.concentrations, structure=crop.structure
            )
    labels = {name: int(name in crop.labels) for name in ("normal", "mspgn", "fsg", "cgn")}
    return {
        "image_id": task.image_id,
        "image_path": image_path,
        "patient_id": task.patient_id,
        "slide_id": task.slide_id,
        "stain": task.stain,
        "mpp": mpp,
        "width": size,
        "height": size,
        **labels,
        "synthetic": 1,
        "scanner": section.scanner.name,
    }


def _delete_truth(out: Path, image_id: str) -> None:
    """Delete masks and maps of an earlier seed under this name."""
    for path in (
        *(out / "masks").glob(f"{image_id}.*.png"),
        out / "truth" / f"{image_id}.npz",
    ):
        path.unlink(missing_ok=True)


def _truth(crop: PhantomCrop, section: Section) -> dict[str, Any]:
    return {
        "labels": crop.labels,
        "severity": asdict(crop.lesions),
        "stain": crop.stain,
        "mpp": crop.mpp,
        "stain_matrix": crop.stain_matrix.tolist(),
        "scanner": asdict(section.scanner),
        "thickness": section.thickness,
        "outline_px": crop.outline,
        "crescent_share": crop.crescent_share,
        "mesangial_cells": crop.mesangial_cells,
    }
