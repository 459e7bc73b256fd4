"""A case as two tables: every image with what counts of it, and every result.

Before the results stand the warnings of the case and what is in no count, a row each. Both are for
spreadsheets, which know UTF-8 by its mark alone and take some texts for formulas.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import labels_text
from glomerulab.cases.grading import ItemResult, RuleResult
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.runtime.files import atomic_write

__all__ = ["write_images_csv", "write_results_csv"]

NOTE = "research use only"
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
"""What makes a spreadsheet run a cell; the wide signs where it is set to Chinese or Japanese."""


def write_images_csv(case: Case, path: Path) -> None:
    """Write one row per image.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists. Labels are ids joined by ``+``. ``image_shows`` is what a person or
        the model said of the image; ``glomerulus_counts_as`` what all images of that glomerulus
        give together, which is what the counts hold, once for each number in ``glomerulus``.
    """
    keys = case.taxonomy.label_ids
    header = (
        "image_id",
        "patient",
        "slide_id",
        "region_id",
        "stain",
        "glomerulus",
        "glomerulus_counts_as",
        "image_shows",
        "called_by_model",
        "changed_by",
        "changed_at",
        "reason_of_change",
        "refer",
        "proposed_by_detector",
        *(f"probability_{key}" for key in keys),
        "note",
    )
    rows = []
    for call in case.calls:
        entry = case.latest_corrections.get(call.image_id)
        rows.append(
            (
                call.image_id,
                case.patient,
                call.slide_id,
                call.region_id or "",
                call.stain or "",
                case.glomerulus_numbers[call.image_id],
                labels_text(case.glomerulus_of(call).called),
                labels_text(case.reading_of(call)),
                labels_text(call.called),
                *(("", "", "") if entry is None else (entry.by, entry.time, entry.reason)),
                " ".join(case.review_reasons_of(call)),
                int(call.is_proposed),
                *(f"{call.probabilities[key]:.6f}" for key in keys),
                NOTE,
            )
        )
    _write(path, header, rows)


def write_results_csv(case: Case, path: Path) -> None:
    """Write one row per warning, per count and per question of each rule set.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists. Of a warning, ``rule_set`` is ``warning`` and ``item`` its kind; of
        what could not be judged it is ``not_judged``, and ``item`` names the slide, region or
        image. The number of glomeruli has ``glomeruli``, the rows of labels have ``count``. Where
        a grade rests on several counts, ``n_with`` is empty and ``counted`` names each.
    """
    header = (
        "patient",
        "rule_set",
        "version",
        "item",
        "grade",
        "n_with",
        "n_of",
        "counted",
        "low",
        "high",
        "possible",
        "labels",
        "not_assessed",
        "note",
    )
    rows = [
        _told(case, "warning", one.kind, f"{NOTE}. {one.sentence}", len(header))
        for one in case_warnings(case, "en", max_listed=None)
    ]
    rows += [_told(case, "not_judged", name, NOTE, len(header)) for name in case.failures]
    rows.append(_all(case))
    for one in case.summary.labels:
        low, high = one.interval or ("", "")
        rows.append(
            (
                case.patient,
                "count",
                "",
                one.label.id,
                "",
                one.n_with,
                one.n_of,
                "",
                low,
                high,
                _range(one.n_range),
                one.label.id,
                "",
                NOTE,
            )
        )
    rows += [_item(case, result, item) for result in case.summary.rules for item in result.items]
    _write(path, header, rows)


def _all(case: Case) -> tuple[object, ...]:
    """Make the row of the number of glomeruli, which every share is of."""
    n = case.summary.n_glomeruli
    doubts = _range(case.summary.n_range)
    return (case.patient, "glomeruli", "", "all", "", n, n, "", "", "", doubts, "", "", NOTE)


def _item(case: Case, result: RuleResult, item: ItemResult) -> tuple[object, ...]:
    """Make the row of a question."""
    counted = [
        f"{' or '.join(finding.name for finding in one.findings) or item.item.name}: {one.n_with}"
        for one in item.counted
    ]
    notes = [result.too_few] if item.grade and result.too_few else []
    notes += item.caveats
    return (
        case.patient,
        result.rule_set.id,
        result.rule_set.version,
        item.item.id,
        item.grade.grade if item.grade else "",
        "" if item.n_with is None else item.n_with,
        item.n_of,
        "; ".join(counted),
        "",
        "",
        "; ".join(one.grade for one in item.possible),
        "+".join(item.labels),
        item.not_assessed,
        " ".join((NOTE + ".", *notes)) if notes else NOTE,
    )


def _range(ends: tuple[int, int]) -> str:
    """Write the fewest and the most; spreadsheets take ``2-5`` for the second of May."""
    return f"{ends[0]} to {ends[1]}"


def _told(case: Case, kind: str, item: str, note: str, n_columns: int) -> tuple[object, ...]:
    """Make a row without numbers."""
    return (case.patient, kind, "", item, *[""] * (n_columns - 5), note)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)  # lines end as spreadsheets end them, so that a CR is quoted too
        writer.writerow(header)
        writer.writerows([_harmless(cell) for cell in row] for row in rows)


def _harmless(cell: object) -> object:
    """Let a spreadsheet take a text for a text, whatever somebody wrote there."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
