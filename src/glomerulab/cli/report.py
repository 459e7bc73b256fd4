"""``glomerulab report``: predictions for people and programs; ``override``: a person's word."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.runtime.messages import count_noun

if TYPE_CHECKING:
    from glomerulab.cases.corrections import Correction

__all__ = ["override", "report"]


class ReportLanguage(StrEnum):
    """Of HTML and PDF."""

    EN = "en"
    ZH = "zh"


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
        ReportLanguage, typer.Option(help="Of HTML and PDF: en or zh.")
    ] = ReportLanguage.EN,
    patient: Annotated[str | None, typer.Option(help="Only this patient.")] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(help="Rule set, by name or TOML file; may be given again. Default: all."),
    ] = None,
) -> None:
    """Write a report of each patient: counts with intervals, grades with what doubts leave open.

    Research use only.

    Example: glomerulab report predictions --format html,pdf,geojson
    """
    from glomerulab.cases.rules import load_rule_set
    from glomerulab.reports.case.warnings import lost_words
    from glomerulab.reports.case.write import FORMATS, write_case_reports
    from glomerulab.runtime.progress import show_progress

    asked = [name.strip() for name in formats.split(",") if name.strip()]
    wanted = [name for name in FORMATS if name in asked]
    if len(wanted) != len(set(asked)) or not wanted:
        raise typer.BadParameter(f"must be of {', '.join(FORMATS)}", param_hint="--format")
    written = write_case_reports(
        predictions,
        out or (predictions if predictions.is_dir() else predictions.parent) / "reports",
        formats=wanted,
        rule_sets=[load_rule_set(name) for name in rules] if rules else None,
        language="zh" if language is ReportLanguage.ZH else "en",
        patient=patient,
        track=show_progress,
    )
    for case in written.cases:
        glomeruli = count_noun(case.summary.n_glomeruli, "glomerulus", "glomeruli")
        failures = f", {len(case.failures)} not judged" if case.failures else ""
        typer.echo(f"{case.patient}: {glomeruli}, {case.summary.n_referred} to look at{failures}")
    for lost in dict.fromkeys(
        one for case in written.cases for one in (*case.lost, *case.unmatched_corrections)
    ):
        typer.echo(f"overrides.csv, in no count: {lost_words(lost, 'en')}", err=True)
    placeless = [case.patient for case in written.cases if not case.slides]
    if "geojson" in wanted and placeless:
        typer.echo(
            f"no GeoJSON of {', '.join(placeless)}: no slide to draw on (crops, or a slide that "
            "could not be read); choose another --format",
            err=True,
        )
    if not written.paths:
        raise typer.Exit(1)
    typer.echo(f"{count_noun(len(written.paths), 'file')} in {written.paths[0].parent}")
    typer.echo("Research use only.")


def override(
    predictions: Annotated[Path, typer.Argument(help="Folder that `glomerulab predict` wrote.")],
    image: Annotated[
        str | None, typer.Argument(help="image_id, as in predictions.csv; not with --from.")
    ] = None,
    *,
    labels: Annotated[
        str | None, typer.Option(help="What it shows: label ids by commas, or not_a_glomerulus.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Name of the person who says so.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    changes: Annotated[
        Path | None, typer.Option("--from", help="Changes that the page of a report has saved.")
    ] = None,
) -> None:
    """Change a call: every count follows, and what the model said stays visible.

    The entry is appended to overrides.csv with name, time and reason; nothing in that file is ever
    changed. Confirm a call by giving it again. Research use only.

    Example: glomerulab override predictions s1__g7 --labels cgn --by "Dr Li" --reason "crescent"

    Example: glomerulab override predictions --from P12.changes.csv
    """
    one = (image, labels, by, reason)
    if changes is not None and any(part is not None for part in one):
        raise typer.BadParameter(
            "stands alone: its file holds images, labels, names and reasons", param_hint="--from"
        )
    if changes is not None:
        _override_all(predictions, changes)
    elif image is None or labels is None or by is None or reason is None:
        raise typer.BadParameter("give IMAGE with --labels, --by and --reason, or --from FILE")
    else:
        _override_one(predictions, image, labels=labels, by=by, reason=reason)
    typer.echo("Write the reports again with `glomerulab report`. Research use only.")


def _override_one(predictions: Path, image: str, *, labels: str, by: str, reason: str) -> None:
    from glomerulab.cases.add_corrections import add_correction
    from glomerulab.cases.case_folder import read_case_folder

    case = read_case_folder(predictions)
    words = [word for word in labels.split(",") if word.strip()]
    entry = add_correction(case, image, labels=words, by=by, reason=reason)
    _tell_counted(predictions, [entry])


def _override_all(predictions: Path, path: Path) -> None:
    """Add a file of changes; what was overtaken is told, and ends with exit code 1."""
    from glomerulab.cases.add_corrections import import_corrections
    from glomerulab.cases.case_folder import read_case_folder

    done = import_corrections(read_case_folder(predictions), path)
    _tell_counted(predictions, done.added)
    typer.echo(f"{count_noun(len(done.added), 'change')} added, {len(done.known)} there before")
    for change, later in done.overtaken:
        typer.echo(
            f"{change.image_id}: not added, since {later.by} changed it later ({later.time}, to "
            f"{later.labels_text}); decide with `glomerulab override {predictions} "
            f"{change.image_id} --labels {change.labels_text.replace('+', ',')} ...`",
            err=True,
        )
    if done.overtaken:
        raise typer.Exit(1)


def _tell_counted(predictions: Path, entries: Sequence["Correction"]) -> None:
    """Say what counts from now on: of an image whose glomerulus has others, what all give."""
    from glomerulab.cases.case import build_cases
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.corrections import labels_text

    cases = build_cases(read_case_folder(predictions), [])
    found = {call.image_id: (case, call) for case in cases for call in case.calls}
    for entry in entries:
        case, call = found[entry.image_id]
        said = f"{entry.labels_text} from now on ({entry.by})"
        others = ", ".join(case.other_slides_of(call))
        if others:
            whole = labels_text(case.glomerulus_of(call).called)
            typer.echo(
                f"{entry.image_id} shows {said}; its glomerulus stands on {others} too, and counts "
                f"as {whole}"
            )
        else:
            typer.echo(f"{entry.image_id} counts as {said}")
