"""``glomerulab predict``: apply a trained model; ``glomerulab gates``: make a run ready for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import (
    ClassOption,
    ClusterOption,
    DrawnMppOption,
    IgnoreBoundsOption,
    SchedulerOption,
    SkipClassOption,
    StainOption,
    region_options,
)

if TYPE_CHECKING:
    from glomerulab.pipeline.predict import PredictSettings, PredictSummary

__all__ = ["gates", "predict"]

N_LISTED = 10
FAILED = "slides, regions or images"


def predict(
    source: Annotated[
        Path,
        typer.Argument(help="A slide, a folder of slides, a slides table, or a manifest of crops."),
    ],
    *,
    model: Annotated[Path, typer.Option(help="Run folder, or what `export` made of one.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, case.json and crops.")],
    regions: Annotated[
        Path | None,
        typer.Option(help="For slides: a region file, or a folder with one per slide."),
    ] = None,
    detect: Annotated[
        Path | None,
        typer.Option(help="Instead of regions: a segmenter, which outlines the glomeruli."),
    ] = None,
    stain: Annotated[
        StainOption | None, typer.Option(help="Of slides and crops that do not state theirs.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=10, help="Around regions; as the training crops were cut.")
    ] = 0.1,
    mpp_override: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=10,
            help="Micrometres per pixel of the slides, in place of their metadata's.",
        ),
    ] = None,
    classes: ClassOption = None,
    skip_classes: SkipClassOption = None,
    ignore_bounds: IgnoreBoundsOption = False,
    drawn_mpp: DrawnMppOption = None,
    symmetries: Annotated[
        bool,
        typer.Option("--symmetries", help="Average over the eight rotations and mirror images."),
    ] = False,
    saliency: Annotated[
        bool, typer.Option("--saliency", help="Draw where the network looked (Grad-CAM).")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes: a case for each with --cohort, else from 500 crops."),
    ] = 1,
    cohort: Annotated[
        bool, typer.Option("--cohort", help="A folder for each patient, for many slides.")
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="Of a cohort: 7/100 takes the seventh of 100 parts.")
    ] = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Call each glomerulus, with what cannot be ruled out. Run again to continue.

    --part, --scheduler and --cluster imply --cohort, which `glomerulab cohort merge` gathers.
    Research use only. Make reports of the result with `glomerulab report`.

    Example: glomerulab predict slides.csv --model run --regions regions/ --out predictions

    Example: glomerulab predict slides.csv --model run --detect segmenter --out cohort --part 7/100
    """
    from glomerulab.pipeline import predict as pipeline
    from glomerulab.runtime.progress import show_progress

    settings = pipeline.PredictSettings(
        regions,
        margin,
        mpp_override,
        None if stain is None else stain.value,
        workers,
        detector=detect,
        symmetries=symmetries,
        saliency=saliency,
        region_options=region_options(
            classes, skip_classes, ignore_bounds=ignore_bounds, drawn_mpp=drawn_mpp
        ),
    )
    if cohort or part is not None or scheduler is not None or cluster is not None:
        _predict_cohort(
            source, model, out, settings=settings, part=part, scheduler=scheduler, cluster=cluster
        )
        return
    summary = pipeline.predict(source, model, out, settings=settings, track=show_progress)
    _print_summary(summary)
    if summary.failures or not summary.n_images:
        raise typer.Exit(1)


def _predict_cohort(
    source: Path,
    model: Path,
    out: Path,
    *,
    settings: "PredictSettings",
    part: str | None,
    scheduler: str | None,
    cluster: Path | None,
) -> None:
    from glomerulab.pipeline.cohort import predict_cohort
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.messages import count_noun
    from glomerulab.runtime.parallel import parse_part
    from glomerulab.runtime.progress import show_progress

    wanted = (1, 1) if part is None else parse_part(part)
    with open_workers(scheduler, cluster) as workers:
        done = predict_cohort(
            source,
            model,
            out,
            settings=settings,
            part=wanted,
            workers=workers,
            track=show_progress,
        )
    typer.echo(
        f"{count_noun(done.n_done, 'case')} done, {len(done.failed)} failed, {done.n_before} ended "
        f"before: {done.folder}"
    )
    for case in done.failed[:N_LISTED]:
        typer.echo(f"  failed: {case}", err=True)
    if done.failed:
        typer.echo("`glomerulab cohort status` lists the reasons.", err=True)
    if done.n_elsewhere:
        typer.echo(
            f"{count_noun(done.n_elsewhere, 'case')} in the work of another process", err=True
        )
    typer.echo("Gather the parts with `glomerulab cohort merge`. Research use only.")
    if done.failed or done.n_elsewhere:
        raise typer.Exit(1)


def gates(
    run: Annotated[Path, typer.Argument(help="Run folder; its images must still exist.")],
) -> None:
    """Fit and store what `predict` needs besides the weights: calibration and stain references.

    `train` does it at its end; this is for runs that were trained before. Research use only.

    Example: glomerulab gates run
    """
    from glomerulab.inference.fit_calibration import fit_calibration
    from glomerulab.runtime.progress import show_progress

    facts = fit_calibration(run, track=show_progress).facts
    typer.echo(
        f"temperature {facts.temperature:.2f}, conformal sets at {facts.coverage:.0%} from "
        f"{facts.n_validation} validation images; stored in {run / 'gates'}"
    )


def _print_summary(summary: "PredictSummary") -> None:
    from glomerulab.runtime.messages import count_noun

    typer.echo(
        f"{count_noun(summary.n_images, 'image')} classified, {summary.n_referred} of them "
        "referred to a person: "
        f"{summary.folder / 'predictions.csv'}"
    )
    for line in summary.region_lines:
        typer.echo(line, err=True)
    if summary.n_without_stain:
        typer.echo(
            f"{count_noun(summary.n_without_stain, 'image')} without a stated stain: their "
            "colours stay as they are, and a person must look at each. Predict again with --stain, "
            "or with a column `stain` in the table.",
            err=True,
        )
    for note in summary.stain_notes:
        typer.echo(note, err=True)
    if not summary.n_images:
        typer.echo(
            "No glomerulus: no region was drawn or proposed on the slides that could be read. "
            "The report of each case states it.",
            err=True,
        )
    if summary.failures:
        typer.echo(
            f"{count_noun(len(summary.failures), 'slide, region or image', FAILED)} could not be "
            f"classified: {summary.folder / 'failures.csv'}",
            err=True,
        )
        for failure in summary.failures[:N_LISTED]:
            typer.echo(f"  {failure.slide} {failure.region}: {failure.reason}", err=True)
    if summary.n_proposed:
        typer.echo(
            f"{summary.n_proposed} of the regions were proposed by a detector, not drawn by a "
            "person. Correct them in QuPath or the annotation program, then predict with --regions."
        )
    typer.echo("Research use only.")
