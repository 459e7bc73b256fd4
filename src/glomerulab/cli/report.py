"""``glomerulab report`` writes the reports of predictions; ``override`` corrects a call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import (
    AcceptEditsOption,
    ClusterOption,
    LanguageOption,
    ReferencesOption,
    SchedulerOption,
    StructuresOption,
    SurroundingsOption,
)
from glomerulab.runtime.messages import count_noun

if TYPE_CHECKING:
    from glomerulab.cases.corrections import Correction
    from glomerulab.pipeline.cohort_report import CohortReports
    from glomerulab.reports.case.written_files import Leftovers

__all__ = ["override", "report"]


def report(
    predictions: Annotated[Path, typer.Argument(help="Folder that `glomerulab predict` wrote.")],
    *,
    formats: Annotated[
        str, typer.Option("--format", help="html, pdf, csv, geojson, dicom-sr, fhir; by commas.")
    ] = "html",
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default reports/ in the predictions folder.")
    ] = None,
    language: Annotated[
        LanguageOption, typer.Option(help="Of HTML and PDF: en or zh.")
    ] = LanguageOption.EN,
    patient: Annotated[str | None, typer.Option(help="Only this patient.")] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(help="Rule set, by name or TOML file; may be given again. Default: all."),
    ] = None,
    accept_edits: AcceptEditsOption = False,
    maps: Annotated[
        bool, typer.Option("--maps", help="Also show saliency maps that failed their tests.")
    ] = False,
    slides: SurroundingsOption = None,
    structures: StructuresOption = None,
    references: ReferencesOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Of a cohort: processes.")] = 1,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Write a report of each patient: counts with intervals, grades with all that are possible.

    Those of a cohort are written to the folders of its cases. Research use only.

    Example: glomerulab report predictions --format html,pdf,geojson
    """
    from glomerulab.cases.rules import load_rule_set
    from glomerulab.pipeline.cohort_report import is_cohort, report_cohort
    from glomerulab.reports.case.text import outdated_text
    from glomerulab.reports.case.write import FORMATS, write_case_reports
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.progress import show_progress

    requested = [name.strip() for name in formats.split(",") if name.strip()]
    wanted = [name for name in FORMATS if name in requested]
    unknown = [name for name in requested if name not in FORMATS]
    if unknown or not wanted:
        given = repr(unknown[0]) if unknown else "nothing"
        raise typer.BadParameter(
            f"--format must be one or more of {', '.join(FORMATS)} by commas, got {given}"
        )
    rule_sets = [load_rule_set(name) for name in rules] if rules else None
    if is_cohort(predictions):
        if out is not None or patient is not None or maps or slides is not None:
            raise typer.BadParameter(
                "--out, --patient, --maps and --slides are not for a cohort; give the folder of "
                f"one case, {predictions}/cases/NAME"
            )
        with open_workers(scheduler, cluster) as pool:
            done = report_cohort(
                predictions,
                formats=wanted,
                rule_sets=rule_sets,
                language=language.language,
                accept_edits=accept_edits,
                structures=structures,
                references=references,
                n_workers=workers,
                workers=pool,
                track=show_progress,
            )
        _print_cohort(predictions, done)
        return
    if scheduler is not None or cluster is not None:
        raise typer.BadParameter(
            "--scheduler and --cluster are for the folder of a cohort; leave them out for one case"
        )
    written = write_case_reports(
        predictions,
        out or (predictions if predictions.is_dir() else predictions.parent) / "reports",
        formats=wanted,
        rule_sets=rule_sets,
        language=language.language,
        patient=patient,
        accept_edits=accept_edits,
        maps=maps,
        slides=slides,
        structures=structures,
        references=references,
        track=show_progress,
    )
    for case in written.cases:
        glomeruli = count_noun(case.summary.n_glomeruli, "glomerulus", "glomeruli")
        failures = f", {len(case.failures)} not evaluated" if case.failures else ""
        if case.summary.n_not_assessed:
            glomeruli += f", {case.summary.n_not_assessed} not assessed as glomeruli"
        typer.echo(f"{case.patient}: {glomeruli}, {case.summary.n_referred} to review{failures}")
    for entry in dict.fromkeys(
        one for case in written.cases for one in (*case.outdated, *case.unmatched)
    ):
        typer.echo(f"overrides.csv, not counted: {outdated_text(entry, 'en')}", err=True)
    _print_leftovers(written.leftovers)
    without_slides = [case.patient for case in written.cases if not case.slides]
    if "geojson" in wanted and without_slides:
        typer.echo(
            f"no GeoJSON of {', '.join(without_slides)}: no slide to draw on (crops, or a slide "
            "that could not be read); choose another --format",
            err=True,
        )
    if not written.paths:
        raise typer.Exit(1)
    typer.echo(f"{count_noun(len(written.paths), 'file')} in {written.paths[0].parent}")
    typer.echo("Research use only.")


def _print_leftovers(leftovers: "Leftovers") -> None:
    for path in leftovers.removed:
        typer.echo(
            f"{path}: removed, since its slides or images belong to another patient now", err=True
        )
    for path in leftovers.kept:
        typer.echo(
            f"{path}: not removed, since it was changed after it was written, but its slides or "
            "images belong to another patient now; remove it yourself",
            err=True,
        )


def _print_cohort(folder: Path, done: "CohortReports") -> None:
    for name, reason in done.failures:
        typer.echo(f"no report of {name}: {reason}", err=True)
    typer.echo(
        f"{count_noun(done.n_files, 'file')} of {count_noun(done.n_cases, 'case')} in "
        f"{folder}/cases/*/reports. Research use only."
    )
    if done.failures or not done.n_cases:
        raise typer.Exit(1)


def override(
    predictions: Annotated[Path, typer.Argument(help="Folder that `glomerulab predict` wrote.")],
    image: Annotated[
        str | None, typer.Argument(help="image_id, as in predictions.csv; not with --from.")
    ] = None,
    *,
    labels: Annotated[
        str | None, typer.Option(help="What it shows: label ids by commas, or not_a_glomerulus.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Name of the person.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    changes: Annotated[
        Path | None, typer.Option("--from", help="Changes that the page of a report has saved.")
    ] = None,
    accept_edits: AcceptEditsOption = False,
) -> None:
    """Correct a call: every count follows, and the model's call stays visible.

    The correction is appended to overrides.csv with name, time and reason; rows of that file are
    never changed. Confirm a call by giving its labels again. Research use only.

    Example: glomerulab override predictions s1__g7 --labels cgn --by "Dr Li" --reason "crescent"

    Example: glomerulab override predictions --from P12.changes.csv
    """
    if changes is not None and any(one is not None for one in (image, labels, by, reason)):
        raise typer.BadParameter(
            "--from takes no IMAGE, --labels, --by or --reason: the file holds them"
        )
    if changes is not None:
        _override_all(predictions, changes, accept_edits=accept_edits)
    elif image is None or labels is None or by is None or reason is None:
        parts = {"IMAGE": image, "--labels": labels, "--by": by, "--reason": reason}
        missing = ", ".join(name for name, given in parts.items() if given is None)
        raise typer.BadParameter(
            f"{missing} must be given; a correction needs IMAGE, --labels, --by and --reason, or "
            "--from FILE"
        )
    else:
        _override_one(
            predictions, image, labels=labels, by=by, reason=reason, accept_edits=accept_edits
        )
    typer.echo("Write the reports again with `glomerulab report`. Research use only.")


def _override_one(
    predictions: Path, image: str, *, labels: str, by: str, reason: str, accept_edits: bool
) -> None:
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.corrections import add_correction

    case = read_case_folder(predictions, accept_edits=accept_edits)
    names = [name for name in labels.split(",") if name.strip()]
    entry = add_correction(case, image, labels=names, by=by, reason=reason)
    _print_counts(predictions, [entry], accept_edits=accept_edits)


def _override_all(predictions: Path, path: Path, *, accept_edits: bool) -> None:
    """Import a file of corrections; conflicts are printed and give exit code 1."""
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.corrections import import_corrections

    folder = read_case_folder(predictions, accept_edits=accept_edits)
    done = import_corrections(folder, path)
    _print_counts(predictions, done.added, accept_edits=accept_edits)
    typer.echo(
        f"{count_noun(len(done.added), 'change')} added, {len(done.already_present)} there before"
    )
    for change, later in done.conflicts:
        typer.echo(
            f"{change.image_id}: not added, since {later.by} changed it later ({later.time}, to "
            f"{later.labels_text}); decide with `glomerulab override {predictions} "
            f"{change.image_id} --labels {change.labels_text.replace('+', ',')} ...`",
            err=True,
        )
    if done.conflicts:
        raise typer.Exit(1)


def _print_counts(
    predictions: Path, entries: Sequence["Correction"], *, accept_edits: bool
) -> None:
    """Print what each image, or its glomerulus with its other images, is counted as."""
    from glomerulab.cases.case import build_cases
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.corrections import labels_text

    cases = build_cases(read_case_folder(predictions, accept_edits=accept_edits), [])
    found = {call.image_id: (case, call) for case in cases for call in case.calls}
    for entry in entries:
        case, call = found[entry.image_id]
        labels = f"{entry.labels_text} from now on ({entry.by})"
        others = ", ".join(case.other_slides_of(call))
        if others:
            counted = labels_text(case.glomerulus_of(call).labels)
            typer.echo(
                f"{entry.image_id} shows {labels}; its glomerulus is also on {others} and counts "
                f"as {counted}"
            )
        else:
            typer.echo(f"{entry.image_id} counts as {labels}")
