"""``glomerulab cohort``: what became of the cases of a cohort, and its tables and page."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.app import CommandGroup
from glomerulab.cli.options import LanguageOption

__all__ = ["cohort_app"]

N_LISTED = 20

cohort_app = CommandGroup(help="Show, repeat and gather what `predict --cohort` wrote.")

Folder = Annotated[Path, typer.Argument(help="Folder that `glomerulab predict --cohort` wrote.")]


@cohort_app.command()
def status(folder: Folder) -> None:
    """Print how many cases are done, failed, running and pending, and why cases failed.

    Research use only.

    Example: glomerulab cohort status cohort
    """
    from itertools import islice

    from glomerulab.pipeline.cohort_folder import CohortFolder
    from glomerulab.pipeline.cohort_merge import count_states, failed_cases

    cohort = CohortFolder(folder)
    counts = count_states(cohort)
    typer.echo(", ".join(f"{n} {state}" for state, n in counts.items()))
    for one in islice(failed_cases(cohort), N_LISTED):
        typer.echo(f"  {one.case}: {one.reason}")
    if counts["failed"] > N_LISTED:
        typer.echo(f"{counts['failed'] - N_LISTED} more are in failures.csv after `cohort merge`")
    typer.echo("Research use only.")


@cohort_app.command()
def retry(
    folder: Folder,
    *,
    case: Annotated[
        list[str] | None, typer.Option(help="Only this patient; may be given again.")
    ] = None,
) -> None:
    """Make failed cases pending: the next `glomerulab predict` tries them again. Research use only.

    Example: glomerulab cohort retry cohort --case P12
    """
    from glomerulab.errors import OutputError
    from glomerulab.pipeline.cohort_folder import CohortFolder
    from glomerulab.runtime.messages import count_noun

    cohort = CohortFolder(folder)
    cases, states = cohort.cases(), cohort.states()
    failed = {
        one: name
        for one, name in zip(cases["case"], cases["name"], strict=True)
        if states.get(name) == "failed"
    }
    unknown = [name for name in case or [] if name not in failed]
    if unknown:
        raise OutputError(
            f"no case {unknown[0]!r} has failed; `glomerulab cohort status` lists those that have",
            where=str(folder),
        )
    names = [failed[name] for name in case or failed]
    if not names:
        typer.echo("No case has failed. Research use only.")
        return
    cohort.retry(names)
    typer.echo(
        f"{count_noun(len(names), 'case')} pending again; run the same `glomerulab predict` again. "
        "Research use only."
    )


@cohort_app.command()
def merge(
    folder: Folder,
    others: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of the same cohort on other disks; their cases move here."),
    ] = None,
    *,
    language: Annotated[
        LanguageOption, typer.Option(help="Of the page: en or zh.")
    ] = LanguageOption.EN,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write the calls of all cases as Parquet (calls/), failures.csv and the page cohort.html.

    Research use only.

    Example: glomerulab cohort merge cohort
    """
    from glomerulab.pipeline.cohort_merge import merge_cohort
    from glomerulab.runtime.progress import show_progress

    done = merge_cohort(
        folder,
        others or [],
        language=language.language,
        n_workers=workers,
        track=show_progress,
    )
    facts = done.facts
    typer.echo(
        f"{facts.n_done} of {facts.n_cases} cases done, {facts.n_failed} failed, {facts.n_open} "
        f"open; {facts.n_images} images: {done.calls} and {done.page}"
    )
    typer.echo("Research use only.")
