"""A phantom cohort as crops: pixels, manifest, masks and the truth, all from one seed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.errors import ConfigError
from glomerulab.images import write_image
from glomerulab.phantom.glomerulus import PhantomCrop, render_crop
from glomerulab.phantom.lesions import kind_schedule
from glomerulab.phantom.materials import Stain
from glomerulab.phantom.section import Section, draw_section, scanner_park
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.taxonomy import load_taxonomy

__all__ = ["NOTICE", "parse_stains", "section_of", "write_phantom_cohort", "write_truth"]

NOTICE = "synthetic phantom, not clinical data; research use only"
"""Stands in every file of truth."""

# First numbers of the spawn keys, so that no two streams of one seed meet.
PATIENT_STREAM, KIND_STREAM, CROP_STREAM = 1, 2, 3


@dataclass(frozen=True, slots=True)
class _CropTask:
    number: int
    patient: int
    stain: Stain
    kind: str

    @property
    def patient_id(self) -> str:
        return f"phantom-p{self.patient + 1:03d}"

    @property
    def slide_id(self) -> str:
        return f"{self.patient_id}-{self.stain.lower()}"

    @property
    def image_id(self) -> str:
        return f"{self.slide_id}-{self.number + 1:05d}"


def write_phantom_cohort(
    out: Path,
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
        Write the true concentrations too: 2 MB per crop of 512 x 512 before compression.
    n_workers : int, default 1
        Processes.
    track : Track
        Shows progress.

    Returns
    -------
    Path
        The manifest.
    """
    _check(n_patients, n_per_patient, stains)
    tasks = _tasks(n_patients, n_per_patient, seed, stains)
    for name in ("images", "masks", "truth"):
        make_folder(out / name)
    write = partial(
        _write_crop, out=out, seed=seed, size=size, mpp=mpp, concentrations=concentrations
    )
    rows: dict[str, dict[str, Any]] = {}
    outcomes = map_outcomes(write, tasks, n_workers=n_workers)
    for outcome in track(outcomes, "Rendering synthetic crops", len(tasks)):
        if outcome.error is not None:
            raise outcome.error
        rows[outcome.item.image_id] = outcome.value or {}
    table = pd.DataFrame([rows[task.image_id] for task in tasks])
    path = out / "manifest.csv"
    write_manifest(manifest_from_rows(table, folder=out, taxonomy=load_taxonomy("paper")), path)
    return path


def parse_stains(text: str) -> tuple[Stain, ...]:
    """Read the names of stains.

    Parameters
    ----------
    text : str
        ``HE``, ``PAS`` or both, separated by a comma.

    Returns
    -------
    tuple of {"HE", "PAS"}

    Raises
    ------
    ConfigError
        If another name stands in it, or none.
    """
    known: dict[str, Stain] = {"HE": "HE", "PAS": "PAS"}
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"stains must be HE, PAS or both, got {text!r}")
    return tuple(known[name] for name in names)


def section_of(patient: int, stain: Stain, seed: int) -> Section:
    """Return the section of one patient in one stain.

    Parameters
    ----------
    patient : int
        Number from 0.
    stain : {"HE", "PAS"}
    seed : int
        Of the cohort.

    Returns
    -------
    Section
        Both stains of a patient share scanner and size of glomeruli.
    """
    of_patient = np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(PATIENT_STREAM, patient))
    )
    park = scanner_park(seed)
    scanner = park[int(of_patient.integers(len(park)))]
    radius = float(of_patient.uniform(72.0, 98.0))
    of_stain = np.random.default_rng(
        np.random.SeedSequence(
            seed, spawn_key=(PATIENT_STREAM, patient, ("HE", "PAS").index(stain))
        )
    )
    return draw_section(stain, of_stain, scanner=scanner, radius_um=radius)


def write_truth(path: Path, truth: dict[str, Any]) -> None:
    """Write a file of truth as JSON, marked as synthetic.

    Parameters
    ----------
    path : Path
    truth : dict
    """
    text = json.dumps({"synthetic": True, "notice": NOTICE, **truth}, indent=1)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _check(n_patients: int, n_per_patient: int, stains: Sequence[Stain]) -> None:
    for name, value in (("patients", n_patients), ("glomeruli per patient", n_per_patient)):
        if value < 1:
            raise ConfigError(f"the number of {name} must be at least 1, got {value}")
    unknown = sorted(set(stains) - {"HE", "PAS"})
    if unknown or not stains:
        raise ConfigError(f"stains must be HE, PAS or both, got {', '.join(unknown) or 'none'}")


def _tasks(
    n_patients: int, n_per_patient: int, seed: int, stains: Sequence[Stain]
) -> list[_CropTask]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(KIND_STREAM,)))
    kinds = kind_schedule(n_patients * n_per_patient, rng)
    return [
        _CropTask(n, n // n_per_patient, stains[n % n_per_patient % len(stains)], kind)
        for n, kind in enumerate(kinds)
    ]


def _write_crop(
    task: _CropTask, *, out: Path, seed: int, size: int, mpp: float, concentrations: bool
) -> dict[str, Any]:
    """Render one crop, write its files, and return its row."""
    section = section_of(task.patient, task.stain, seed)
    sequence = np.random.SeedSequence(seed, spawn_key=(CROP_STREAM, task.number))
    crop = render_crop(task.kind, section, sequence, size=size, mpp=mpp)
    _forget_truth(out, task.image_id)
    image_path = f"images/{task.image_id}.png"
    write_image(crop.pixels, out / image_path)
    for label, mask in crop.masks.items():
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


def _forget_truth(out: Path, image_id: str) -> None:
    """Delete what another seed left under this name: its masks would be taken for this crop's."""
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
