"""``glomerulab segment``: outline the structures of slides."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import ClusterOption, PartOption, SchedulerOption, StainOption

if TYPE_CHECKING:
    from glomerulab.pipeline.segment import SegmentSummary
    from glomerulab.structures.write import StructureFormat

__all__ = ["segment"]

N_LISTED = 10


def segment(
    slides: Annotated[
        Path, typer.Argument(help="A slide, a folder of slides, or a slides table (CSV).")
    ],
    *,
    model: Annotated[Path, typer.Option(help="Segmenter: a run folder, or an ONNX folder.")],
    out: Annotated[Path, typer.Option(help="Folder for slides/ and slides.csv.")],
    formats: Annotated[
        str | None,
        typer.Option("--format", help="geojson, csv, labels, dicom; by commas; by default all."),
    ] = None,
    mpp_override: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=10,
            help="Micrometres per pixel of the slides, in place of their metadata's.",
        ),
    ] = None,
    stain: Annotated[
        StainOption | None, typer.Option(help="Of slides that do not state theirs.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    part: PartOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Outline structures, count and measure them. Run again to continue. Research use only.

    Example: glomerulab segment slides.csv --model segmenter --out structures
    """
    from glomerulab.pipeline.segment import segment_slides
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.parallel import parse_part
    from glomerulab.runtime.progress import show_progress

    with open_workers(scheduler, cluster) as pool:
        done = segment_slides(
            slides,
            model,
            out,
            formats=_formats(formats),
            mpp_override=mpp_override,
            stain=None if stain is None else stain.value,
            n_workers=workers,
            workers=pool,
            part=None if part is None else parse_part(part),
            track=show_progress,
        )
    _print_summary(done)
    if done.failures or any(one.n_failed_tiles for one in done.slides):
        raise typer.Exit(1)


def _formats(given: str | None) -> "tuple[StructureFormat, ...]":
    from glomerulab.errors import ConfigError
    from glomerulab.structures.write import STRUCTURE_FORMATS

    if given is None:
        return STRUCTURE_FORMATS
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names or set(names) - set(STRUCTURE_FORMATS):
        known = ", ".join(STRUCTURE_FORMATS)
        raise ConfigError(f"--format must be one or more of {known} by commas, got {given}")
    return tuple(name for name in STRUCTURE_FORMATS if name in names)


def _print_summary(done: "SegmentSummary") -> None:
    from glomerulab.runtime.messages import count_noun

    n_before = sum(not one.is_new for one in done.slides)
    there = f", {n_before} of them before" if n_before else ""
    typer.echo(f"{count_noun(len(done.slides), 'slide')} segmented{there}: {done.folder}")
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    notes = [f"{one.slide_id}: {note}" for one in done.slides for note in one.notes]
    for note in notes[:N_LISTED]:
        typer.echo(note, err=True)
    if len(notes) > N_LISTED:
        typer.echo(f"and {len(notes) - N_LISTED} more such notes in slide.json", err=True)
    if done.failures:
        typer.echo(f"{count_noun(len(done.failures), 'slide')} could not be segmented:", err=True)
        for failure in done.failures[:N_LISTED]:
            typer.echo(f"  {failure.slide}: {failure.reason}", err=True)
    typer.echo("Research use only.")
