"""``glomerulab extract``: cut the annotated regions of slides to images, and list them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import (
    ClassOption,
    ClusterOption,
    DrawnMppOption,
    IgnoreBoundsOption,
    PartOption,
    SchedulerOption,
    SkipClassOption,
    region_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glomerulab.pipeline.extract import ExtractSummary

__all__ = ["extract"]

N_LISTED = 10
"""How many failures, slides or classes are printed; the tables list them all."""


class ImageFormat(StrEnum):
    """File format of crops."""

    PNG = "png"
    JPEG = "jpeg"


def extract(
    slides: Annotated[
        Path, typer.Argument(help="A slide, a folder of slides, or a slides table (CSV).")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for crops/, masks/ and manifest.csv.")],
    regions: Annotated[
        Path | None,
        typer.Option(
            help="Region file (QuPath GeoJSON, ImageScope or ASAP XML, COCO, CSV), or a folder "
            "with one called after each slide."
        ),
    ] = None,
    detect: Annotated[
        Path | None,
        typer.Option(help="Instead of regions: a segmenter, which outlines the glomeruli."),
    ] = None,
    mpp: Annotated[
        float, typer.Option(min=0.01, max=100, help="Micrometres per pixel of the crops.")
    ] = 0.5,
    margin: Annotated[
        float,
        typer.Option(min=0, max=10, help="Added on every side, a share of the longer side."),
    ] = 0.1,
    mpp_override: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=10,
            help="Micrometres per pixel of the slides, in place of their metadata's.",
        ),
    ] = None,
    image_format: Annotated[
        ImageFormat, typer.Option("--format", help="Image format of the crops.")
    ] = ImageFormat.PNG,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    taxonomy: Annotated[
        str, typer.Option(help="Built-in name or TOML file; its labels are columns.")
    ] = "paper",
    classes: ClassOption = None,
    skip_classes: SkipClassOption = None,
    ignore_bounds: IgnoreBoundsOption = False,
    drawn_mpp: DrawnMppOption = None,
    part: PartOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what extract wrote to OUT and start again.")
    ] = False,
) -> None:
    """Cut each region with a margin at a wanted mpp. Run again to continue. Research use only.

    masks/ holds the outline of each crop, white on black.

    Example: glomerulab extract slides/ --regions regions/ --out crops --mpp 0.5 --workers 2

    Example: glomerulab extract slides/ --detect segmenter --out crops
    """
    from glomerulab.pipeline.crop_plan import CropSettings
    from glomerulab.pipeline.extract import extract_crops
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.parallel import parse_part
    from glomerulab.runtime.progress import show_progress
    from glomerulab.taxonomy import load_taxonomy

    with open_workers(scheduler, cluster) as pool:
        summary = extract_crops(
            slides,
            regions=regions,
            detector=detect,
            out=out,
            settings=CropSettings(
                mpp,
                margin,
                image_format.value,
                mpp_override,
                region_options(
                    classes, skip_classes, ignore_bounds=ignore_bounds, drawn_mpp=drawn_mpp
                ),
                has_masks=True,
                may_be_empty=detect is not None,
            ),
            taxonomy=load_taxonomy(taxonomy),
            n_workers=workers,
            workers=pool,
            part=None if part is None else parse_part(part),
            overwrite=overwrite,
            track=show_progress,
        )
    if part is not None:
        typer.echo(f"part {part}: {summary.n_cut} crops cut, {summary.n_existing} there before")
        return
    _print_summary(summary)
    if summary.failures:
        raise typer.Exit(1)


def _print_summary(summary: "ExtractSummary") -> None:
    from glomerulab.runtime.messages import count_noun

    there = f", {summary.n_existing} were there already" if summary.n_existing else ""
    typer.echo(f"{summary.n_cut} crops cut{there}: {summary.manifest_path}")
    for line in summary.region_lines():
        typer.echo(line, err=True)
    if summary.n_padded:
        typer.echo(
            f"{count_noun(summary.n_padded, 'crop')} padded with the slide's white where the "
            "region reaches beyond the slide (column padded_share)"
        )
    if summary.enlarged_slides:
        typer.echo(
            "slides coarser than the wanted mpp, whose crops were enlarged without new detail: "
            + _first(summary.enlarged_slides)
        )
    doubts = [one for found in summary.scale_warnings.values() for one in found]
    for doubt in doubts[:N_LISTED]:
        typer.echo(f"warning: {doubt}", err=True)
    if len(doubts) > N_LISTED:
        typer.echo(f"warning: and {len(doubts) - N_LISTED} more such warnings.", err=True)
    if summary.other_slides:
        typer.echo(
            "slides that the region file names but that were not given: "
            + _first(summary.other_slides)
        )
    for line in summary.unknown_class_lines():
        typer.echo(line)
    if summary.failures:
        typer.echo(
            f"{count_noun(len(summary.failures), 'slide or region', 'slides or regions')} could "
            f"not be cut: {summary.manifest_path.with_name('failures.csv')}",
            err=True,
        )
        for failure in summary.failures[:N_LISTED]:
            region = f" region {failure.region}" if failure.region else ""
            typer.echo(f"  {failure.slide}{region}: {failure.reason}", err=True)
    typer.echo("Research use only.")


def _first(names: "Sequence[str]") -> str:
    """Join the first names and count the rest."""
    more = f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    return ", ".join(names[:N_LISTED]) + more
