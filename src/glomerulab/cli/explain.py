"""``glomerulab explain``: draw and measure the saliency of a model's predictions."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import ClusterOption, LanguageOption, SchedulerOption

VERDICTS = {
    "passed": "its maps passed the tests",
    "failed": "its maps failed the tests, see explanations.html",
    "untested": "its maps were not tested",
}


class MethodName(StrEnum):
    """Saliency methods."""

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
        list[MethodName] | None,
        typer.Option(help="May be given several times; default all that the network allows."),
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
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    language: Annotated[LanguageOption, typer.Option(help="Of the page.")] = LanguageOption.EN,
) -> None:
    """Write overlays and their page, explanations.csv, methods.csv, sanity.csv and verdicts.csv.

    Where lesion masks are there, each method is measured against them and against chance.
    Research use only.

    Example: glomerulab explain runs/first cohort/split.csv --split test
    """
    import pandas as pd

    from glomerulab.errors import ImageFileError, TaxonomyError
    from glomerulab.explain.attribution import METHODS
    from glomerulab.explain.explainer import Explainer, find_inputs
    from glomerulab.reports.run.explanation_summary import (
        explanation_summary,
        sanity_summary,
        summary_lines,
    )
    from glomerulab.reports.run.explanations import (
        VERDICTS_FILE,
        map_tests,
        write_explanations_html,
    )
    from glomerulab.reports.run.tables import write_table_csv
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.files import new_folder
    from glomerulab.runtime.progress import show_progress

    methods = None if method is None else [known for known in METHODS if known in method]
    explainer = Explainer(run, methods=methods, seed=seed)
    taxonomy = explainer.card.taxonomy
    unknown = [name for name in label or [] if name not in taxonomy.label_ids]
    if unknown:
        raise TaxonomyError(
            f"the model has no label {', '.join(unknown)}; it predicts "
            f"{', '.join(taxonomy.label_ids)}",
            where=str(run),
        )
    inputs = find_inputs(images, taxonomy, masks=masks, split=split)
    folder = out or run / "explanations"
    with new_folder(folder), open_workers(scheduler, cluster) as workers:
        found = explainer.explain(
            inputs, folder, label_ids=label or (), workers=workers, track=show_progress
        )
        if found.table.empty and found.failures:  # keep the tables of an earlier run
            first = found.failures[0]
            raise ImageFileError(
                f"no image could be explained. The first, {first.item}: {_reason(first.error)}",
                where=str(images),
            )
    summary = explanation_summary(found.table)
    failed = [{"image_id": one.item, "reason": str(one.error)} for one in found.failures]
    table = pd.concat([found.table, pd.DataFrame(failed)]) if failed else found.table
    write_table_csv(table, folder / "explanations.csv")
    write_table_csv(summary, folder / "methods.csv")
    checked = None
    if sanity and not found.table.empty:
        checked = sanity_summary(explainer.sanity(inputs[:sanity], track=show_progress)[0])
        write_table_csv(checked, folder / "sanity.csv")
    tests = map_tests(summary, checked)
    verdicts = [(one.method, one.verdict, " ".join(one.failed)) for one in tests]
    columns = ["method", "verdict", "failed"]
    write_table_csv(pd.DataFrame(verdicts, columns=columns), folder / VERDICTS_FILE)
    write_explanations_html(
        found.table,
        summary,
        tests,
        folder,
        taxonomy=taxonomy,
        title=run.resolve().name,
        language=language.language,
    )
    for one in tests:
        typer.echo(
            f"{one.method}: {one.verdict} its tests"
            if one.verdict != "untested"
            else f"{one.method}: not tested"
        )
    for line in summary_lines(summary):
        typer.echo(line)
    for failure in found.failures:
        typer.echo(f"not explained: {failure.item}: {_reason(failure.error)}", err=True)
    typer.echo(f"Written: {folder}. Research use only.")
    if found.failures:
        raise typer.Exit(1)


def _reason(error: BaseException | None) -> str:
    """Return an error without the file, which the line names already."""
    return str(getattr(error, "message", error))
