"""``glomerulab explain``: where in an image a model found its answer, and whether that holds."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from glomerulab.explain.explain import Explained

__all__ = ["explain"]


class MethodName(StrEnum):
    """Ways to look into a model."""

    GRAD_CAM = "grad-cam"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    OCCLUSION = "occlusion"


def explain(
    run: Annotated[Path, typer.Argument(help="Run folder, as `glomerulab train` writes it.")],
    images: Annotated[Path, typer.Argument(help="A manifest, a folder of images, or an image.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default `explanations` in the run.")
    ] = None,
    method: Annotated[
        list[MethodName] | None, typer.Option(help="May be given several times; default all.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label id; default: what the model calls, and what has a mask."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of <image_id>.<label>.png; default `masks` beside IMAGES."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a manifest, only this part.")] = None,
    sanity: Annotated[
        int, typer.Option(min=0, help="Images for the check with randomised weights; 0: none.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the controls and random weights.")] = 0,
) -> None:
    """Write overlays, explanations.csv, methods.csv and sanity.csv.

    Where lesion masks are there, each method is measured against them and against chance.
    Research use only.

    Example: glomerulab explain runs/first cohort/split.csv --split test
    """
    from glomerulab.errors import TaxonomyError
    from glomerulab.explain.attribution import METHODS
    from glomerulab.explain.explain import Explainer
    from glomerulab.explain.targets import find_subjects
    from glomerulab.reports.run.explanation_summary import (
        explanation_summary,
        sanity_summary,
        summary_lines,
    )
    from glomerulab.reports.run.score_files import write_table_csv
    from glomerulab.runtime.progress import show_progress
    from glomerulab.runtime.sealing import check_seal

    check_seal(run)
    chosen = [known for known in METHODS if method is None or known in method]
    explainer = Explainer(run, methods=chosen, seed=seed)
    taxonomy = explainer.card.taxonomy
    unknown = [name for name in label or [] if name not in taxonomy.label_ids]
    if unknown:
        raise TaxonomyError(
            f"the model has no label {', '.join(unknown)}; it answers "
            f"{', '.join(taxonomy.label_ids)}",
            where=str(run),
        )
    subjects = find_subjects(images, taxonomy, masks=masks, split=split)
    folder = out or run / "explanations"
    found = explainer.explain(subjects, folder, label_ids=label or (), track=show_progress)
    summary = explanation_summary(found.table)
    write_table_csv(_with_failures(found), folder / "explanations.csv")
    write_table_csv(summary, folder / "methods.csv")
    if sanity and not found.table.empty:
        checked, _ = explainer.sanity(subjects[:sanity], track=show_progress)
        write_table_csv(sanity_summary(checked), folder / "sanity.csv")
    for line in summary_lines(summary):
        typer.echo(line)
    for failure in found.failures:
        typer.echo(f"not explained: {failure.item}: {failure.error}", err=True)
    typer.echo(f"Written: {folder}. Research use only.")
    if found.failures:
        raise typer.Exit(1)


def _with_failures(found: "Explained") -> "pd.DataFrame":
    """Add a row with the reason for every image that could not be explained."""
    import pandas as pd

    failed = [{"image_id": one.item, "reason": str(one.error)} for one in found.failures]
    return pd.concat([found.table, pd.DataFrame(failed)]) if failed else found.table
