"""All steps on synthetic slides: render, extract, split, normalise, augment, train, report.

Each step is done by the function that the single command calls, and continues an earlier run.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.cohort.near_duplicates import check_near_duplicates
from glomerulab.cohort.splits import split_by_patient
from glomerulab.images import read_image
from glomerulab.phantom.slides import write_phantom_slides
from glomerulab.pipeline.augment import augment_manifest
from glomerulab.pipeline.crop_plan import CropSettings
from glomerulab.pipeline.evaluate import analyse_images
from glomerulab.pipeline.extract import extract_crops
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.pipeline.train import train_and_calibrate
from glomerulab.reports.run.report import RunReport, write_run_report
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile
from glomerulab.stain.fitting import fit_many
from glomerulab.stain.reference import StainReference
from glomerulab.training.config import read_config

__all__ = ["run_quickstart"]

logger = logging.getLogger(__name__)

N_PATIENTS = 24
N_GLOMERULI = 8
MPP = 1.0
N_TRAINING_IMAGES = 240


def run_quickstart(
    out: Path,
    *,
    seed: int = 0,
    n_workers: int = 2,
    warn: Callable[[str], None] = logger.warning,
    track: Track = silent,
) -> RunReport:
    """Run every step in a folder, and return the report of the trained model.

    Parameters
    ----------
    seed : int, default 0
        Of the slides, the split, the augmentation and the training.
    warn : callable, optional
        Called with each notice of the image analysis, and with the reason if the run cannot be
        prepared for `predict`.

    Raises
    ------
    OutputError
        If `out` holds a quickstart of another seed.
    """
    make_folder(out)
    SettingsFile(
        out / "seed.txt", load=_seed_of, dump=lambda settings: f"{settings['seed']}\n"
    ).continue_or_refuse({"seed": seed}, way_out="give another --out")
    slides = _render(out / "phantom", seed=seed, n_workers=n_workers, track=track)
    cohort = _extract(slides, out / "cohort", seed=seed, n_workers=n_workers, track=track)
    targets = {
        str(stain): _training_target(cohort, str(stain)) for stain in set(cohort.table["stain"])
    }
    cohort = normalize_manifest(
        cohort, targets, out / "normalized", n_workers=n_workers, track=track
    ).manifest
    manifest_path = out / "augmented" / "manifest.csv"
    augmented = augment_manifest(
        cohort,
        manifest_path.parent,
        to=N_TRAINING_IMAGES,
        seed=seed,
        balanced=True,
        n_workers=n_workers,
        track=track,
    )
    write_manifest(augmented.manifest, manifest_path)
    run = _train(manifest_path, out / "run", seed=seed, track=track, warn=warn)
    images = analyse_images(run, track=track)
    for notice in images.notices:
        warn(notice)
    return write_run_report(run, images=images, track=track)


def _seed_of(text: str) -> dict[str, int]:
    return {"seed": int(text)}


def _render(out: Path, *, seed: int, n_workers: int, track: Track) -> Path:
    table = out / "slides.csv"
    if table.is_file():  # written last, so that all slides exist
        return table
    return write_phantom_slides(
        out,
        n_patients=N_PATIENTS,
        n_glomeruli=N_GLOMERULI,
        seed=seed,
        mpp=MPP,
        n_workers=n_workers,
        track=track,
    )


def _extract(slides: Path, out: Path, *, seed: int, n_workers: int, track: Track) -> Manifest:
    """Cut the crops and split them by patient."""
    summary = extract_crops(
        slides,
        regions=slides.parent / "regions",
        out=out,
        settings=CropSettings(mpp=MPP),
        n_workers=n_workers,
        track=track,
    )
    cohort = split_by_patient(summary.manifest, seed=seed)
    check_near_duplicates(cohort, n_workers=n_workers, track=track)
    write_manifest(cohort, out / "split.csv")
    return cohort


def _training_target(cohort: Manifest, stain: str) -> StainReference:
    """Fit the target on the first training slide of a stain, so that no test image is seen."""
    table = cohort.table
    candidates = table[(table["split"] == "train") & (table["stain"] == stain)]
    slide_id = candidates["slide_id"].min()
    of_slide = cohort.with_table(candidates[candidates["slide_id"] == slide_id])
    images = map(read_image, of_slide.image_paths())
    # The test of a stain is calibrated on real tissue; a rendered slide has the stain it states.
    found = fit_many(images, stain, source=str(slide_id), check_stain=False)
    return replace(found, trusts_stain=True)


def _train(
    manifest: Path, out: Path, *, seed: int, track: Track, warn: Callable[[str], None]
) -> Path:
    with resources.as_file(resources.files("glomerulab.training") / "quickstart.toml") as settings:
        config = read_config(settings, {"manifest": manifest, "out": out, "seed": seed})
    return train_and_calibrate(config, resume=True, track=track, warn=warn)
