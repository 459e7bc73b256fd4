"""Two or more runs side by side: each by itself, and every pair on the images both judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from glomerulab.errors import ConfigError
from glomerulab.evaluation.comparison import (
    AreaComparison,
    Comparison,
    ModelCost,
    compare_areas,
    compare_models,
)
from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.run_tables import RunTables, read_run
from glomerulab.evaluation.scores import OVERALL_SCORES, score_table
from glomerulab.evaluation.warnings import EvaluationWarning, find_warnings
from glomerulab.reports.run.html import Page, Table, write_html
from glomerulab.reports.run.model_table import model_page_table, model_table, write_model_table
from glomerulab.reports.run.report import FOOTER
from glomerulab.reports.run.score_files import write_table_csv
from glomerulab.reports.run.score_tables import score_of
from glomerulab.reports.run.score_words import rounded, score_words
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent

__all__ = ["ComparisonReport", "write_comparison"]

MIN_P = 0.001
"""Smaller p values are shown as smaller than this."""


@dataclass(frozen=True)
class ComparisonReport:
    """What was found, and where it stands."""

    headline: str
    comparisons: list[Comparison]
    areas: list[AreaComparison]
    """Empty where a patient has several of the images, or is not known."""
    html_path: Path


@dataclass(frozen=True)
class _Entry:
    name: str
    run: RunTables
    eval_set: EvalSet
    scores: pd.DataFrame


def write_comparison(
    folders: Sequence[Path],
    out: Path,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    costs: Mapping[str, ModelCost] | None = None,
    track: Track = silent,
) -> ComparisonReport:
    """Compare runs and write ``comparison.html`` and ``comparison.csv``.

    Where every image is of another patient, ``areas.csv`` too: ROC areas by DeLong's test.

    Parameters
    ----------
    folders : sequence of Path
        At least two run folders of one head and taxonomy.
    out : Path
        Folder; made if it is not there.
    split : str, default "test"
    n_resamples : int, default 2000
    seed : int, default 0
    costs : mapping of str to ModelCost, optional
        By name of the run's folder; with it, ``table1.csv`` and ``table1.md`` are written too.
    track : Track, default silent

    Returns
    -------
    ComparisonReport

    Raises
    ------
    ConfigError
        If the heads of the runs differ: one class and several labels cannot be compared.
    """
    names = _names(folders)
    entries = [
        _entry(name, folder, split, n_resamples, seed)
        for name, folder in track(list(zip(names, folders, strict=True)), "Judging runs")
    ]
    _refuse_two_heads(entries)
    models = [(entry.name, entry.eval_set) for entry in entries]
    found = compare_models(models, n_resamples=n_resamples, seed=seed)
    areas = compare_areas(models)
    make_folder(out)
    write_table_csv(pd.DataFrame([asdict(one) for one in found]), out / "comparison.csv")
    if areas:
        write_table_csv(pd.DataFrame([asdict(one) for one in areas]), out / "areas.csv")
    tables = (
        *(() if costs is None else (_written_model_table(entries, costs, out),)),
        _score_table(entries),
        _pair_table(found),
        *_area_table(entries, areas),
    )
    sentence = _headline(found)
    html_path = out / "comparison.html"
    write_html(_page(entries, sentence, tables), html_path)
    return ComparisonReport(sentence, found, areas, html_path)


def _entry(name: str, folder: Path, split: str, n_resamples: int, seed: int) -> _Entry:
    run = read_run(folder)
    eval_set = eval_set_of_split(run.predictions, run.taxonomy, head=run.head, split=split)
    return _Entry(name, run, eval_set, score_table(eval_set, n_resamples=n_resamples, seed=seed))


def _refuse_two_heads(entries: Sequence[_Entry]) -> None:
    if len({entry.run.head for entry in entries}) > 1:
        raise ConfigError(
            "some runs answer with one class (softmax), others with any labels (sigmoid); compare "
            "runs of one kind",
            where=", ".join(entry.name for entry in entries),
        )


def _written_model_table(
    entries: Sequence[_Entry], costs: Mapping[str, ModelCost], out: Path
) -> Table:
    """Write Table 1 beside the page; return it as the page shows it."""
    head = entries[0].run.head
    table = model_table({entry.name: entry.scores for entry in entries}, costs, head=head)
    is_synthetic = any(entry.run.is_synthetic for entry in entries)
    write_model_table(table, out, head=head, is_synthetic=is_synthetic)
    return model_page_table(table, head=head)


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folder, or by the whole path where two folders are called the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _page(entries: Sequence[_Entry], sentence: str, tables: tuple[Table, ...]) -> Page:
    return Page(
        title="Comparison of " + ", ".join(entry.name for entry in entries),
        is_synthetic=any(entry.run.is_synthetic for entry in entries),
        headline=sentence,
        summary=("Each pair is compared on the images that both judged.",),
        warnings=_warnings(entries),
        tables=tables,
        figures=(),
        gallery=(),
        gallery_note="",
        appendix=(),
        config_text="",
        footer=FOOTER,
    )


def _headline(found: Sequence[Comparison]) -> str:
    one = max(found, key=lambda pair: abs(pair.difference))
    better, worse = (one.first, one.second) if one.difference >= 0 else (one.second, one.first)
    points = f"{100 * abs(one.difference):.1f} percentage points"
    if one.low <= 0.0 <= one.high or math.isnan(one.low):
        return (
            f"The largest difference, {points} between {better} and {worse}, may be chance: its "
            f"interval over patients holds 0 (p {_p(one.p_holm)} by McNemar, corrected)."
        )
    return (
        f"{better} is right more often than {worse}, by {points}; the interval over patients does "
        f"not hold 0 (p {_p(one.p_holm)} by McNemar, corrected)."
    )


def _warnings(entries: Sequence[_Entry]) -> tuple[EvaluationWarning, ...]:
    found = [*_different_images(entries), *_warnings_of_runs(entries)]
    return tuple(sorted(found, key=lambda warning: not warning.severe))


def _different_images(entries: Sequence[_Entry]) -> tuple[EvaluationWarning, ...]:
    ids = [set(entry.eval_set.rows["image_id"]) for entry in entries]
    if all(one == ids[0] for one in ids):
        return ()
    text = (
        "The runs judged different images. Their own scores are therefore not comparable; the "
        "pairs are, on the images they share."
    )
    return (EvaluationWarning("Different test parts", text, severe=True),)


def _warnings_of_runs(entries: Sequence[_Entry]) -> list[EvaluationWarning]:
    """Say what stands against each run; once, where it stands against all in the same words."""
    names: dict[EvaluationWarning, list[str]] = {}
    for entry in entries:
        # That no external set was judged is no matter of a comparison.
        for warning in find_warnings(
            entry.run, entry.eval_set, entry.scores, has_external_set=True
        ):
            names.setdefault(warning, []).append(entry.name)
    return [
        warning
        if len(whom) == len(entries)
        else replace(warning, text=f"{', '.join(whom)}: {warning.text}")
        for warning, whom in names.items()
    ]


def _score_table(entries: Sequence[_Entry]) -> Table:
    rows = []
    for score in OVERALL_SCORES[entries[0].run.head]:
        cells = []
        for entry in entries:
            one = score_of(entry.scores, score)
            ends = "" if math.isnan(one["low"]) else f"{one['low']:.3f} to {one['high']:.3f}"
            cells.append(f"{rounded(one['value'])}\n{ends}")
        rows.append((score_words(score)[0], *cells))
    return Table(
        "Each run by itself",
        ("Score", *(entry.name for entry in entries)),
        tuple(rows),
        note="Value, and under it the 95 % interval over patients. Overlapping intervals do not "
        "mean that there is no difference: the pairs below do.",
    )


def _pair_table(found: Sequence[Comparison]) -> Table:
    rows = tuple(
        (
            f"{one.first}\nagainst {one.second}",
            f"{one.n_images}\nof {one.n_patients} patients",
            f"{_signed(one.difference)} points\n{_points(one.low, one.high)}",
            str(one.only_first_right),
            str(one.only_second_right),
            _p(one.p_mcnemar).removeprefix("= "),
            _p(one.p_holm).removeprefix("= "),
        )
        for one in found
    )
    return Table(
        "Each pair on the same images",
        ("Pair", "Images", "Difference", "Only first", "Only second", "p", "p, corrected"),
        rows,
        note="Difference in the share right, with its 95 % interval over patients. Only first: "
        "images that the first called right and the second did not. p: exact McNemar test, which "
        "takes images as independent and is therefore too small where a patient has many; "
        "corrected for the number of pairs by Holm's method.",
    )


def _area_table(entries: Sequence[_Entry], areas: Sequence[AreaComparison]) -> tuple[Table, ...]:
    if not areas:
        return ()
    names = {label.id: label.name for label in entries[0].run.taxonomy.labels}
    rows = tuple(
        (
            f"{one.first}\nagainst {one.second}",
            names[one.label],
            str(one.n_images),
            f"{one.difference:+.3f}\n{one.low:+.3f} to {one.high:+.3f}".replace("-", "−"),
            _p(one.p_delong).removeprefix("= "),
            _p(one.p_holm).removeprefix("= "),
        )
        for one in areas
    )
    return (
        Table(
            "ROC-AUC of each pair by DeLong",
            ("Pair", "Class", "Images", "Difference", "p", "p, corrected"),
            rows,
            note="Every image is of another patient, so DeLong's test holds. Difference of the "
            "areas with its 95 % interval; corrected for all pairs and classes of this table by "
            "Holm's method.",
        ),
    )


def _points(low: float, high: float) -> str:
    return "interval not defined" if math.isnan(low) else f"{_signed(low)} to {_signed(high)}"


def _signed(share: float) -> str:
    """Say a difference in percentage points, with a true minus sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return f"< {MIN_P}" if value < MIN_P else f"= {value:.3f}"
