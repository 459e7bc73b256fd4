"""``glomerulab normalize``: recolour the images of a manifest to one target per stain."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import ClusterOption, PartOption, SchedulerOption

if TYPE_CHECKING:
    from glomerulab.stain.reference import StainParameters, StainReference

__all__ = ["normalize"]


class Per(StrEnum):
    """Unit of the fit of the stains."""

    SLIDE = "slide"
    IMAGE = "image"


class Preset(StrEnum):
    """Named parameter sets."""

    RECOMMENDED = "recommended"
    PAPER = "paper"


class Method(StrEnum):
    """Normalisation methods."""

    VAHADANE = "vahadane"
    MACENKO = "macenko"
    REINHARD = "reinhard"


def normalize(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the new images and manifest.")],
    target_he: Annotated[
        list[Path] | None,
        typer.Option(
            help="Target for HE: an image or a stain reference (JSON); several are averaged."
        ),
    ] = None,
    target_pas: Annotated[
        list[Path] | None, typer.Option(help="Target for PAS; repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="STAIN=FILE: target for another stain; repeatable.")
    ] = None,
    per: Annotated[Per, typer.Option(help="Fit stains per slide, or per image.")] = Per.SLIDE,
    preset: Annotated[
        Preset, typer.Option(help="Parameters: measured best, or the paper's.")
    ] = Preset.RECOMMENDED,
    method: Annotated[Method, typer.Option(help="Normalisation method.")] = Method.VAHADANE,
    white: Annotated[
        str | None, typer.Option(help="R,G,B of unstained glass; estimated by default.")
    ] = None,
    keep_others: Annotated[
        bool,
        typer.Option("--keep-others", help="Keep images of stains without a target unchanged."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="An image that cannot be normalised, or a target from the test part, is an error.",
        ),
    ] = False,
    trust_stains: Annotated[
        bool,
        typer.Option(
            "--trust-stains",
            help="Take the stated stains as right, without a test of the colours.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    part: PartOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Normalise the stains of every image, each stain to its own target. Research use only.

    Targets must come from the training part of the cohort. A second run continues the first.

    Example: glomerulab normalize cohort/manifest.csv --target-he he.png --target-pas pas.png
    --out normalized
    """
    from dataclasses import replace

    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.pipeline.normalize import normalize_manifest
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.parallel import parse_part
    from glomerulab.runtime.progress import show_progress
    from glomerulab.stain.reference import PRESETS

    levels = None if white is None else _three_levels(white)
    parameters = replace(PRESETS[preset.value], method=method.value)
    files = _target_files(target_he or [], target_pas or [], target or [])
    targets = {
        stain: _load_target(some, stain, parameters, trust_stains=trust_stains)
        for stain, some in files.items()
    }
    with open_workers(scheduler, cluster) as pool:
        result = normalize_manifest(
            read_manifest(manifest),
            targets,
            out,
            per=per.value,
            white=levels,
            keep_others=keep_others,
            strict=strict,
            n_workers=workers,
            workers=pool,
            part=None if part is None else parse_part(part),
            track=show_progress,
        )
    for status, n in sorted(result.n_by_status.items()):
        typer.echo(f"{status}: {n}")
    for sentence in result.doubts:
        typer.echo(f"warning: {sentence}", err=True)
    for leak in result.target_leaks.values():
        typer.echo(f"warning: {leak}", err=True)
    if part is not None:
        typer.echo(f"part {part} is done (research use only)")
        return
    typer.echo(f"wrote {result.path} (research use only)")
    if result.n_unreadable:
        typer.echo("some images could not be read; see the column stain_reason", err=True)
        raise typer.Exit(1)


def _target_files(he: list[Path], pas: list[Path], others: list[str]) -> dict[str, list[Path]]:
    files = {stain: list(some) for stain, some in (("HE", he), ("PAS", pas)) if some}
    for text in others:
        stain, separator, file = text.partition("=")
        if not separator or not stain or not file:
            raise typer.BadParameter(f"--target must be STAIN=FILE, got {text!r}")
        files.setdefault(stain, []).append(Path(file))
    if not files:
        raise typer.BadParameter(
            "no target is given; give --target-he, --target-pas or --target STAIN=FILE: images of "
            "the training part"
        )
    return files


def _three_levels(text: str) -> tuple[float, float, float]:
    parts = text.split(",")
    try:
        red, green, blue = (float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(
            f"--white must be R,G,B such as 243,241,244, got {text!r}"
        ) from None
    if not all(0.0 < level <= 255.0 for level in (red, green, blue)):
        raise typer.BadParameter(f"--white must have levels above 0 and at most 255, got {text!r}")
    return red, green, blue


def _load_target(
    files: list[Path], stain: str, parameters: "StainParameters", *, trust_stains: bool
) -> "StainReference":
    """Read or fit each file and average several."""
    from dataclasses import replace

    from glomerulab.stain.reference import aggregate

    references = [
        _load_reference(file, stain, parameters, trust_stains=trust_stains) for file in files
    ]
    if trust_stains:
        references = [replace(one, trusts_stain=True) for one in references]
    if len(references) == 1:
        return references[0]
    # Source of a mean: the images it is made of, since the leakage check searches for them.
    names = [one.source or str(file) for one, file in zip(references, files, strict=True)]
    return aggregate(references, source=", ".join(names))


def _load_reference(
    file: Path, stain: str, parameters: "StainParameters", *, trust_stains: bool
) -> "StainReference":
    from glomerulab.errors import StainError
    from glomerulab.images import read_image
    from glomerulab.stain.fitting import FitFailure, StainStatus, try_fit
    from glomerulab.stain.reference import read_reference

    if file.suffix.lower() != ".json":
        found = try_fit(
            read_image(file),
            stain,
            parameters=parameters,
            source=str(file),
            check_stain=not trust_stains,
        )
        if not isinstance(found, FitFailure):
            return found
        way_out = "Choose another target"
        if found.status is StainStatus.OTHER_STAIN:
            way_out += f", or give --trust-stains if it is {stain}"
        raise StainError(f"{found.status}: {found.reason}. {way_out}.", where=str(file))
    reference = read_reference(file)
    if reference.parameters != parameters:
        raise StainError(
            f"the stain reference was fitted with {reference.parameters}; give the same --preset "
            "and --method",
            where=str(file),
        )
    return reference
