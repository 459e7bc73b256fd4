"""A case as two tables for spreadsheets: its images, and its results.

Spreadsheets recognise UTF-8 by its byte order mark, and run texts that look like formulas.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case import Case
from glomerulab.cases.corrections import call_text, labels_text
from glomerulab.cases.grading import ItemResult, RuleResult
from glomerulab.cases.structures import Measured
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.tables import not_a_formula

NOTE = "research use only"
"""What makes a spreadsheet run a cell; the wide signs where it is set to Chinese or Japanese."""
IMAGE_COLUMNS = (
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
)
RESULT_COLUMNS = (
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
    "value",
    "unit",
)

UNITS = {"mm2": "mm2", "share": "share from 0 to 1", "per_mm2": "1/mm2", "count": "number"}

Row = Mapping[str, object]


def write_images_csv(case: Case, path: Path) -> None:
    """Write one row per image.

    Labels are ids joined by ``+``. ``image_shows`` is the person's or the model's call of the
    image; ``glomerulus_counts_as`` what all images of its glomerulus give together, which is
    counted once for each number in ``glomerulus``.
    """
    keys = [f"probability_{key}" for key in case.taxonomy.label_ids]
    _write(path, (*IMAGE_COLUMNS, *keys, "note"), [_image_row(case, call) for call in case.calls])


def _image_row(case: Case, call: GlomerulusCall) -> Row:
    entry = case.latest_corrections.get(call.image_id)
    shown = call_text if case.is_not_assessed(call) else labels_text
    counted_as = call_text if case.glomerulus_of(call).is_not_assessed else labels_text
    row = {
        "image_id": call.image_id,
        "patient": case.patient,
        "slide_id": call.slide_id,
        "region_id": call.region_id or "",
        "stain": call.stain or "",
        "glomerulus": case.glomerulus_numbers[call.image_id],
        "glomerulus_counts_as": counted_as(case.glomerulus_of(call).labels),
        "image_shows": shown(case.labels_of(call)),
        "called_by_model": call_text(call.called),
        "refer": " ".join(case.review_reasons_of(call)),
        "proposed_by_detector": int(call.is_proposed),
        "note": NOTE,
    }
    if entry is not None:
        row |= {"changed_by": entry.by, "changed_at": entry.time, "reason_of_change": entry.reason}
    return row | {f"probability_{key}": f"{p:.6f}" for key, p in call.probabilities.items()}


def write_results_csv(case: Case, path: Path) -> None:
    """Write one row per warning, per failure, per count and per item of each rule set.

    In rows of warnings, ``rule_set`` is ``warning`` and ``item`` its kind; in those of failures it
    is ``not_judged``, and ``item`` names the slide, region or image. The numbers of glomeruli
    and of regions that are not assessed as such have ``glomeruli``, the rows of labels have
    ``count``. If a grade is based on several counts, ``n_with`` is empty and ``counted`` names
    each. Measures of outlines have ``structures`` and their key, with ``value``, ``unit`` and, as
    ``low`` and ``high``, where the segmenter is certain and where it finds possible.
    """
    rows: list[Row] = [
        {"rule_set": "warning", "item": one.kind, "note": f"{NOTE}. {one.sentence}"}
        for one in case_warnings(case, "en", max_listed=None)
    ]
    rows += [{"rule_set": "not_judged", "item": name} for name in case.failures]
    summary = case.summary
    rows.append(
        {
            "rule_set": "glomeruli",
            "item": "all",
            "n_with": summary.n_glomeruli,
            "n_of": summary.n_glomeruli,
            "possible": _range(summary.n_range),
        }
    )
    rows.append({"rule_set": "glomeruli", "item": "not_assessed", "n_with": summary.n_not_assessed})
    for one in summary.labels:
        low, high = one.interval or ("", "")
        rows.append(
            {
                "rule_set": "count",
                "item": one.label.id,
                "n_with": one.n_with,
                "n_of": one.n_of,
                "low": low,
                "high": high,
                "possible": _range(one.n_range),
                "labels": one.label.id,
            }
        )
    if case.structures is not None:
        rows += [_measured_row(one) for one in case.structures.measures]
    rows += [_item_row(result, item) for result in summary.rules for item in result.items]
    _write(path, RESULT_COLUMNS, [{"patient": case.patient, "note": NOTE, **row} for row in rows])


def _measured_row(one: Measured) -> dict[str, object]:
    row: dict[str, object] = {
        "rule_set": "structures",
        "item": one.key,
        "unit": UNITS[one.unit],
    }
    if one.value is None:
        return row | {"not_assessed": one.basis["en"]}
    low, likely, high = (f"{end:.6g}" for end in one.value)
    return row | {"value": likely, "low": low, "high": high, "counted": one.basis["en"]}


def _item_row(result: RuleResult, item: ItemResult) -> Row:
    counts = [
        f"{' or '.join(finding.name for finding in one.findings) or item.item.name}: {one.n_with}"
        for one in item.counts
    ]
    warnings = [result.too_few] if item.grade and result.too_few else []
    warnings += [text["en"] for text in item.warnings]
    row: dict[str, object] = {
        "rule_set": result.rule_set.id,
        "version": result.rule_set.version,
        "item": item.item.id,
        "grade": item.grade.grade if item.grade else "",
        "n_with": "" if item.n_with is None else item.n_with,
        "n_of": "" if item.measured else item.n_of,
        "counted": "; ".join(counts),
        "possible": "; ".join(one.grade for one in item.possible),
        "labels": "+".join(item.labels),
        "not_assessed": "" if item.not_assessed is None else item.not_assessed["en"],
        "note": " ".join((NOTE + ".", *warnings)) if warnings else NOTE,
    }
    if item.measured is not None:
        cells = _measured_row(item.measured)
        row |= {name: cells[name] for name in ("value", "low", "high", "unit", "counted")}
    return row


def _range(ends: tuple[int, int]) -> str:
    """Write the fewest and the most; spreadsheets read ``2-5`` as the second of May."""
    return f"{ends[0]} to {ends[1]}" if ends[0] != ends[1] else str(ends[0])


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        # With line ends as spreadsheets write them, so that a carriage return is quoted too.
        writer: csv.DictWriter[str] = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: not_a_formula(cell) for name, cell in row.items()})
