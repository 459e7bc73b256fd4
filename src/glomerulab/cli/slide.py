"""``glomerulab slide``: facts of a slide, a thumbnail, a copy without identity."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glomerulab.cli.app import CommandGroup

if TYPE_CHECKING:
    from glomerulab.slides.slide import Slide

__all__ = ["slide_app"]

slide_app = CommandGroup(
    help="Show the facts of a slide; write a thumbnail, or a copy without label and metadata."
)

MppOverride = Annotated[
    float | None,
    typer.Option(min=0.05, max=10, help="Micrometres per pixel, if the slide does not state them."),
]


@slide_app.command()
def info(
    slide: Annotated[Path, typer.Argument(help="Slide, DICOM folder, or plain image.")],
    mpp_override: MppOverride = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
    properties: Annotated[
        bool, typer.Option("--properties", help="Also print all metadata of the file.")
    ] = False,
) -> None:
    """Print dimensions, levels, mpp, objective, vendor, stain and properties. Research use only.

    Example: glomerulab slide info CMU-1.svs
    """
    from glomerulab.slides.slide import open_slide

    with open_slide(slide, mpp_override=mpp_override) as opened:
        facts = _facts(opened)
        if as_json:
            facts["properties"] = dict(opened.properties)
            typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
            return
        for line in _readable(facts):
            typer.echo(line)
        if properties:
            for name, value in sorted(opened.properties.items()):
                typer.echo(f"  {name}: {' '.join(value.split())}")
        typer.echo("Research use only.")


@slide_app.command()
def thumbnail(
    slide: Annotated[Path, typer.Argument(help="Slide, DICOM folder, or plain image.")],
    out: Annotated[Path, typer.Argument(help="Image to write, .png or .jpg.")],
    size: Annotated[int, typer.Option(min=1, max=8192, help="Pixels of the longer side.")] = 1024,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write the slide as one small image. Research use only.

    Example: glomerulab slide thumbnail CMU-1.svs CMU-1.png --size 1024
    """
    from glomerulab.errors import OutputError
    from glomerulab.images import write_image
    from glomerulab.slides.slide import open_slide

    if out.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise OutputError("the thumbnail must end in .png, .jpg or .jpeg", where=str(out))
    if out.exists() and not overwrite:
        raise OutputError("the file exists; give --overwrite to replace it", where=str(out))
    with open_slide(slide) as opened:
        pixels = opened.thumbnail(size)
    write_image(pixels, out)
    height, width, _ = pixels.shape
    typer.echo(f"Written: {out}, {width} x {height} pixels. Research use only.")


@slide_app.command()
def deidentify(
    slide: Annotated[
        Path, typer.Argument(help="Aperio SVS, tiled TIFF, OME-TIFF, DICOM, PNG or JPEG.")
    ],
    out: Annotated[
        Path,
        typer.Argument(help="The copy (DICOM: a folder); choose a name that does not identify."),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Copy a slide without label, macro and identifying metadata, and verify the copy.

    The pixels are copied bit for bit. Formats that cannot be rewritten are refused. Handwriting or
    print on the glass beside the tissue stays in the pixels: look at the thumbnail. Research use
    only.

    Example: glomerulab slide deidentify S23-0815.svs case-001.svs
    """
    from glomerulab.slides.deidentify import deidentify as copy_without_identity

    done = copy_without_identity(slide, out, overwrite=overwrite)
    typer.echo(f"{done.path}: verified, pixels identical")
    typer.echo(f"left out images: {', '.join(done.removed_images) or 'none were there'}")
    typer.echo(f"left out properties: {', '.join(done.removed_properties) or 'none were there'}")
    typer.echo("Research use only.")


def _facts(slide: "Slide") -> dict[str, Any]:
    """Return the facts of a slide; the background needs pixels, so a damaged slide is an error."""
    from glomerulab.errors import MissingMppError

    try:
        mpp: list[float] | None = list(slide.mpp_xy)
        mpp_problem = None
        doubts = [str(one) for one in slide.scale_warnings]
    except MissingMppError as error:
        mpp, mpp_problem, doubts = None, error.message, []
    return {
        "path": str(slide.path),
        "slide_id": slide.slide_id,
        "vendor": slide.vendor,
        "dimensions": list(slide.dimensions),
        "levels": [
            {"width": level.width, "height": level.height, "downsample": level.downsample}
            for level in slide.levels
        ],
        "mpp": mpp,
        "mpp_problem": mpp_problem,
        "warnings": doubts,
        "objective": slide.objective,
        "stain": slide.stain,
        "white": list(slide.background),
        "bounds": None
        if slide.bounds is None
        else [slide.bounds.x, slide.bounds.y, slide.bounds.width, slide.bounds.height],
        "associated_images": list(slide.associated_images),
    }


def _readable(facts: dict[str, Any]) -> list[str]:
    width, height = facts["dimensions"]
    if facts["mpp"] is None:
        mpp = f"unknown: {facts['mpp_problem']}"
        extent = ""
    else:
        across, down = facts["mpp"]
        mpp = f"{across:g}" if across == down else f"{across:g} x {down:g}"
        mpp += " µm per pixel"
        extent = f" ({width * across / 1000:.2f} x {height * down / 1000:.2f} mm)"
    objective = facts["objective"]
    lines = [
        f"slide:      {facts['path']}",
        f"vendor:     {facts['vendor'] or 'plain image'}",
        f"dimensions: {width} x {height}{extent}",
        f"mpp:        {mpp}",
        f"objective:  {'not stated' if objective is None else f'{objective:g}x'}",
        f"stain:      {facts['stain'] or 'not stated'}",
        f"white:      {', '.join(str(level) for level in facts['white'])}",
        f"beside it:  {', '.join(facts['associated_images']) or 'no label, macro or thumbnail'}",
    ]
    if facts["bounds"] is not None:
        lines.append("bounds:     x {}, y {}, {} x {}".format(*facts["bounds"]))
    lines += [f"warning:    {doubt}" for doubt in facts["warnings"]]
    lines.append("levels:")
    lines += [
        f"  {number}: {level['width']} x {level['height']}, downsample {level['downsample']:.4g}"
        for number, level in enumerate(facts["levels"])
    ]
    return lines
