"""``glomerulab quickstart``: the whole pipeline on synthetic slides.

Every step is done by the function that the single command calls.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.train import fit_run_calibration

if TYPE_CHECKING:
    from glomerulab.cohort.manifest import Manifest
    from glomerulab.stain.reference import StainReference

__all__ = ["quickstart"]

N_PATIENTS = 24
N_GLOMERULI = 8
MPP = 1.0
N_TRAINING_IMAGES = 240


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("quickstart"),
    *,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same slides, same model.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render a synthetic cohort, extract, split, normalise, augment, train and report.

    Takes minutes on two cores without a GPU. Run again to continue. The biopsies are rendered:
    the scores say that the pipeline works, and nothing about patients. Research use only.

    Example: glomerulab quickstart --out my-first-run
    """
    from glomerulab.pipeline.evaluate import analyse_images
    from glomerulab.reports.run.report import write_run_report
    from glomerulab.runtime.files import make_folder

    make_folder(out)
    _remember(out, seed)
    typer.echo("Everything below is synthetic. Research use only.")
    slides_table = _render(out / "phantom", seed=seed, workers=workers)
    cohort = _extract(slides_table, out / "cohort", seed=seed, workers=workers)
    cohort = _normalize(cohort, out / "normalized", workers=workers)
    training_table = _augment(cohort, out / "augmented", seed=seed, workers=workers)
    run = _train(training_table, out / "run", seed=seed)
    fit_run_calibration(run, resume=True)

    from glomerulab.runtime.progress import show_progress

    images = analyse_images(run, track=show_progress)
    report = write_run_report(run, images=images, track=show_progress)
    typer.echo("")
    typer.echo(report.headline)
    typer.echo("These biopsies are synthetic: this says nothing about patients. Research use only.")
    typer.echo(f"Report: {report.html_path}")


def _remember(out: Path, seed: int) -> None:
    """Refuse a folder that holds the quickstart of another seed."""
    from glomerulab.errors import OutputError
    from glomerulab.runtime.files import atomic_write

    note = out / "seed.txt"
    if note.is_file() and note.read_text(encoding="utf-8").strip() != str(seed):
        raise OutputError(
            f"holds a quickstart of another seed ({note.read_text(encoding='utf-8').strip()}); "
            "give another --out",
            where=str(out),
        )
    with atomic_write(note) as temporary:
        temporary.write_text(f"{seed}\n", encoding="utf-8")


def _render(out: Path, *, seed: int, workers: int) -> Path:
    from glomerulab.phantom.slides import write_phantom_slides
    from glomerulab.runtime.progress import show_progress

    table = out / "slides.csv"
    if table.is_file():  # written last: where it stands, every slide does
        return table
    return write_phantom_slides(
        out,
        n_patients=N_PATIENTS,
        n_glomeruli=N_GLOMERULI,
        seed=seed,
        mpp=MPP,
        n_workers=workers,
        track=show_progress,
    )


def _extract(slides_table: Path, out: Path, *, seed: int, workers: int) -> "Manifest":
    from glomerulab.cohort.manifest import read_manifest, write_manifest
    from glomerulab.cohort.near_duplicates import check_near_duplicates
    from glomerulab.cohort.splits import split_by_patient
    from glomerulab.pipeline.extract import CropSettings, extract_crops
    from glomerulab.runtime.progress import show_progress

    summary = extract_crops(
        slides_table,
        regions=slides_table.parent / "regions",
        out=out,
        settings=CropSettings(mpp=MPP),
        n_workers=workers,
        track=show_progress,
    )
    cohort = split_by_patient(read_manifest(summary.manifest_path), seed=seed)
    check_near_duplicates(cohort, n_workers=workers, track=show_progress)
    write_manifest(cohort, out / "split.csv")
    return cohort


def _normalize(cohort: "Manifest", out: Path, *, workers: int) -> "Manifest":
    from glomerulab.pipeline.normalize import normalize_manifest
    from glomerulab.runtime.progress import show_progress

    targets = {
        str(stain): _training_target(cohort, str(stain)) for stain in set(cohort.table["stain"])
    }
    return normalize_manifest(cohort, targets, out, n_workers=workers, track=show_progress).manifest


def _training_target(cohort: "Manifest", stain: str) -> "StainReference":
    """Fit the target on the first training slide of a stain: nothing of the test part is seen."""
    from glomerulab.images import read_image
    from glomerulab.stain.fitting import fit_many

    table = cohort.table
    candidates = table[(table["split"] == "train") & (table["stain"] == stain)]
    slide_id = candidates["slide_id"].min()
    of_slide = cohort.with_table(candidates[candidates["slide_id"] == slide_id])
    return fit_many(map(read_image, of_slide.image_paths()), stain, source=str(slide_id))


def _augment(cohort: "Manifest", out: Path, *, seed: int, workers: int) -> Path:
    from glomerulab.cohort.manifest import write_manifest
    from glomerulab.pipeline.augment import augment_manifest
    from glomerulab.runtime.progress import show_progress

    result = augment_manifest(
        cohort,
        out,
        to=N_TRAINING_IMAGES,
        seed=seed,
        balanced=True,
        n_workers=workers,
        track=show_progress,
    )
    write_manifest(result.manifest, out / "manifest.csv")
    return out / "manifest.csv"


def _train(manifest: Path, out: Path, *, seed: int) -> Path:
    from importlib import resources

    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.config import read_config
    from glomerulab.training.run import train

    with resources.as_file(resources.files("glomerulab.training") / "quickstart.toml") as settings:
        config = read_config(settings, {"manifest": manifest, "out": out, "seed": seed})
    return train(config, resume=True, track=show_progress)
