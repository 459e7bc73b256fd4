"""``glomerulab distill``: initial weights for the improved network from a trained one."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["distill"]


def distill(
    manifest: Annotated[
        Path, typer.Argument(help="Manifest or folder of images; labels are not used.")
    ],
    *,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A network with ImageNet weights, such as lite2 or timm:NAME; a run folder; "
            "hf-hub:OWNER/NAME or its folder; or a file of ResNet-50's weights, of which the first "
            "stages suffice. Default: the largest that is installed."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder, for `train --weights`.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of 16 crops.")] = 3000,
    crop: Annotated[int, typer.Option(min=32, help="Height and width of the crops, px.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the crops.")] = 0,
    activation_inside_pair: Annotated[
        bool,
        typer.Option("--activation-inside-pair", help="For networks with this model option."),
    ] = False,
) -> None:
    """Distil the stages of a trained network into the improved network. Research use only.

    Run the same command again to continue. Example: glomerulab distill manifest.csv --out start
    """
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.distill import Distillation, best_teacher
    from glomerulab.training.distill import distill as distill_run

    settings = Distillation(
        manifest,
        teacher or best_teacher(),
        out,
        n_steps=steps,
        input_size=crop,
        seed=seed,
        activation_inside_pair=activation_inside_pair,
    )
    typer.echo(f"teacher: {settings.teacher}")
    history = distill_run(settings, track=show_progress)
    for name, share in history[-1].items():
        if name != "step" and share is not None:
            stage = name.removeprefix("unexplained_")
            typer.echo(f"stage {stage}: {1 - share:.1%} of the teacher's maps explained")
    typer.echo(
        f"run folder: {out}; now: glomerulab train CONFIG --weights {out} (research use only)"
    )
