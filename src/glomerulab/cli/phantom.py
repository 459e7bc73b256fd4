"""``glomerulab phantom``: render synthetic slides or crops with known truth."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["phantom"]


def phantom(
    *,
    out: Annotated[Path, typer.Option(help="Folder for everything that is rendered.")],
    slides: Annotated[
        bool, typer.Option("--slides/--crops", help="Whole slides with regions, or crops.")
    ] = False,
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 12,
    per_patient: Annotated[
        int, typer.Option(min=1, help="Glomeruli of each patient (of each slide with --slides).")
    ] = 8,
    slides_per_patient: Annotated[
        int, typer.Option(min=1, help="Slides of each patient; stains take turns.")
    ] = 1,
    stains: Annotated[str, typer.Option(help="HE, PAS, or both separated by a comma.")] = "HE,PAS",
    mpp: Annotated[float, typer.Option(min=0.05, max=8, help="Micrometres per pixel.")] = 0.5,
    size: Annotated[int, typer.Option(min=32, help="Side of a crop in pixels.")] = 512,
    concentrations: Annotated[
        bool, typer.Option("--concentrations", help="Write the true stain maps of crops (npz).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Render a synthetic cohort: no patient's data, research use only.

    Example: glomerulab phantom --out phantom --patients 24 --per-patient 8 --slides --mpp 1
    """
    from glomerulab.phantom.cohort import parse_stains
    from glomerulab.phantom.crops import write_phantom_crops
    from glomerulab.phantom.slides import write_phantom_slides
    from glomerulab.runtime.progress import show_progress

    wanted = parse_stains(stains)
    if slides:
        path = write_phantom_slides(
            out,
            n_patients=patients,
            slides_per_patient=slides_per_patient,
            n_glomeruli=per_patient,
            seed=seed,
            mpp=mpp,
            stains=wanted,
            n_workers=workers,
            track=show_progress,
        )
    else:
        path = write_phantom_crops(
            out,
            n_patients=patients,
            n_per_patient=per_patient,
            seed=seed,
            size=size,
            mpp=mpp,
            stains=wanted,
            concentrations=concentrations,
            n_workers=workers,
            track=show_progress,
        )
    typer.echo(f"{path} (synthetic, research use only)")
