"""Comparison of runs: each by itself, every pair on shared images, and the costs of the models.

With costs, it contains Table 1 of the paper, also as CSV and Markdown.
"""

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
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.folds import repeated_eval_sets
from glomerulab.evaluation.intervals import BOOTSTRAP, MARK, MIN_RESAMPLES, RULE_OF_THREE
from glomerulab.evaluation.run_tables import RunTables, read_run
from glomerulab.evaluation.scores import OVERALL_SCORES, score_table
from glomerulab.evaluation.warnings import EvaluationWarning, find_warnings
from glomerulab.i18n.catalogue import Language, localized
from glomerulab.predictions import Head
from glomerulab.reports.run.html import Page, Table, write_html
from glomerulab.reports.run.paper_tables import write_paper_tables
from glomerulab.reports.run.tables import (
    ends_text,
    mark_note,
    rounded,
    score_cell,
    score_description,
    score_of,
    write_table_csv,
)
from glomerulab.runtime.files import make_folder, remove_partial_files
from glomerulab.runtime.progress import Track, silent

__all__ = ["write_comparison"]

MIN_P = 0.001
"""Smaller p values are shown as "< 0.001"."""

MODEL_SCORES: dict[Head, tuple[str, ...]] = {
    "softmax": ("accuracy", "macro_f1", "macro_roc_auc"),
    "sigmoid": ("exact_match", "macro_f1", "macro_roc_auc"),
}
COST_COLUMNS = ("Parameters", "MACs", "Training", "Inference", "Size")
COST_NOTE = (
    "With each score its 95 % interval over patients. MACs: multiply-accumulates for one image of "
    "the input size. Training: images per second of the whole loop, median over the epochs. "
    "Inference: the best of several batches of 16 in memory. Size: of the weights file."
)


@dataclass(frozen=True)
class ComparisonReport:
    """A written comparison."""

    headline: str
    comparisons: list[Comparison]
    html_path: Path


@dataclass(frozen=True)
class _Entry:
    name: str
    run: RunTables
    eval_set: EvalSet
    scores: pd.DataFrame
    repeats: tuple[EvalSet, ...] = ()
    """The same images in the other repeats of a cross-validation."""


def write_comparison(
    runs: Sequence[Path | RunTables],
    out: Path,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    costs: Mapping[str, ModelCost] | None = None,
    language: Language = "en",
    track: Track = silent,
) -> ComparisonReport:
    """Compare runs and write ``comparison.html`` and ``comparison.csv``.

    Where every image is of another patient, also ``areas.csv``: ROC areas by DeLong's test.

    Parameters
    ----------
    runs : sequence of Path or RunTables
        At least two run folders, or tables of other models, of one head and taxonomy.
    out : Path
        Folder, created if missing.
    split : str, default "test"
    n_resamples : int, default 2000
    seed : int, default 0
    costs : mapping of str to ModelCost, optional
        By name of the run's folder; with it, ``table1.csv`` and ``table1.md`` are written too.
    language : {"en", "zh"}, default "en"
        Of the page.
    track : Track, default silent

    Raises
    ------
    ConfigError
        If the heads of the runs differ.
    """
    tables = [one if isinstance(one, RunTables) else read_run(one) for one in runs]
    names = _names(tables)
    entries = [
        _entry(name, one, split, n_resamples, seed)
        for name, one in track(list(zip(names, tables, strict=True)), "Evaluating runs")
    ]
    _check_same_head(entries)
    models = [(entry.name, entry.eval_set) for entry in entries]
    repeats = {entry.name: entry.repeats for entry in entries}
    found = compare_models(models, repeats=repeats, n_resamples=n_resamples, seed=seed)
    areas = compare_areas(models)
    make_folder(out)
    remove_partial_files(out)
    write_table_csv(pd.DataFrame([asdict(one) for one in found]), out / "comparison.csv")
    if areas:
        write_table_csv(pd.DataFrame([asdict(one) for one in areas]), out / "areas.csv")
    page_tables = (
        *(() if costs is None else (_written_model_table(entries, costs, out),)),
        _score_table(entries),
        _pair_table(found, is_repeated=any(entry.repeats for entry in entries)),
        *_area_table(entries, areas),
    )
    sentence = _headline(found)
    html_path = out / "comparison.html"
    labels = {
        one.name: localized(one, "name", language) for run in tables for one in run.taxonomy.labels
    }
    write_html(_page(entries, sentence, page_tables), html_path, language, labels)
    return ComparisonReport(sentence, found, html_path)


def model_table(
    scores: Mapping[str, pd.DataFrame], costs: Mapping[str, ModelCost], *, head: Head
) -> pd.DataFrame:
    """Return one row per model: its name, scores with ``_low`` and ``_high``, and `ModelCost`.

    `scores` holds one `glomerulab.evaluation.scores.score_table` per model.
    """
    rows = []
    for name, table in scores.items():
        row: dict[str, object] = {"model": name}
        for score in MODEL_SCORES[head]:
            found = score_of(table, score)
            row |= {
                score: found.value,
                f"{score}_low": found.low,
                f"{score}_high": found.high,
                f"{score}_interval_method": RULE_OF_THREE if found.is_rule_of_three else BOOTSTRAP,
            }
        cost = costs[name]
        row |= {field: getattr(cost, field) for field in ModelCost.__dataclass_fields__}
        rows.append(row)
    return pd.DataFrame(rows)


def model_page_table(table: pd.DataFrame, *, head: Head) -> Table:
    """Return a `model_table` for the page."""
    columns = (
        "Model",
        *(score_description(score)[0] for score in MODEL_SCORES[head]),
        *COST_COLUMNS,
    )
    rows = tuple(
        (
            str(row["model"]),
            *(_score_text(row, score) for score in MODEL_SCORES[head]),
            *_costs(row),
        )
        for row in (
            {str(key): value for key, value in one.items()} for one in table.to_dict("records")
        )
    )
    machines = ", ".join(sorted(set(table["machine"])))
    note = f"{COST_NOTE} Measured on: {machines}.{mark_note(cell for row in rows for cell in row)}"
    return Table("Scores and costs", columns, rows, note=note)


def write_model_table(table: pd.DataFrame, folder: Path, *, head: Head, is_synthetic: bool) -> None:
    """Write a `model_table` as ``table1.csv``, ``table1.md`` and ``table1.tex``.

    The latter two have a notice where the images are rendered (`is_synthetic`).
    """
    write_table_csv(table, folder / "table1.csv")
    page = model_page_table(table, head=head)
    write_paper_tables((page,), folder / "table1", is_synthetic=is_synthetic)


def _entry(name: str, run: RunTables, split: str, n_resamples: int, seed: int) -> _Entry:
    eval_set, *repeats = repeated_eval_sets(run, split)
    scores = score_table(eval_set, repeats=repeats, n_resamples=n_resamples, seed=seed)
    return _Entry(name, run, eval_set, scores, tuple(repeats))


def _check_same_head(entries: Sequence[_Entry]) -> None:
    if len({entry.run.head for entry in entries}) > 1:
        raise ConfigError(
            "some runs have a softmax head (one class), others a sigmoid head (any labels); only "
            "runs with the same head can be compared",
            where=", ".join(entry.name for entry in entries),
        )


def _written_model_table(
    entries: Sequence[_Entry], costs: Mapping[str, ModelCost], out: Path
) -> Table:
    """Write Table 1 as files and return it for the page."""
    head = entries[0].run.head
    table = model_table({entry.name: entry.scores for entry in entries}, costs, head=head)
    is_synthetic = any(entry.run.is_synthetic for entry in entries)
    write_model_table(table, out, head=head, is_synthetic=is_synthetic)
    return model_page_table(table, head=head)


def _names(runs: Sequence[RunTables]) -> list[str]:
    """Name runs by folder or table, or by the full path where two have the same name."""
    short = [run.name for run in runs]
    paths = [str(run.source or run.folder) for run in runs]
    return short if len(set(short)) == len(short) else paths


def _page(entries: Sequence[_Entry], sentence: str, tables: tuple[Table, ...]) -> Page:
    return Page(
        title="Comparison of " + ", ".join(entry.name for entry in entries),
        is_synthetic=any(entry.run.is_synthetic for entry in entries),
        headline=sentence,
        summary=("Each pair is compared on the images that both predict.",),
        warnings=_warnings(entries),
        tables=tables,
    )


def _headline(found: Sequence[Comparison]) -> str:
    one = max(found, key=lambda pair: abs(pair.difference))
    better, worse = (one.first, one.second) if one.difference >= 0 else (one.second, one.first)
    points = f"{100 * abs(one.difference):.1f} percentage points"
    if one.low <= 0.0 <= one.high or math.isnan(one.low):
        return (
            f"The largest difference, {points} between {better} and {worse}, may be chance: its "
            f"interval over patients contains 0 (p {_p(one.p_holm)} by McNemar, corrected)."
        )
    return (
        f"{better} is correct more often than {worse}, by {points}; the interval over patients "
        f"does not contain 0 (p {_p(one.p_holm)} by McNemar, corrected)."
    )


def _warnings(entries: Sequence[_Entry]) -> tuple[EvaluationWarning, ...]:
    found = [*_different_images(entries), *_warnings_of_runs(entries)]
    return tuple(sorted(found, key=lambda warning: not warning.severe))


def _different_images(entries: Sequence[_Entry]) -> tuple[EvaluationWarning, ...]:
    ids = [set(entry.eval_set.rows["image_id"]) for entry in entries]
    if all(one == ids[0] for one in ids):
        return ()
    text = (
        "The runs were evaluated on different images, so their own scores are not comparable; the "
        "pairs are, on the images they share."
    )
    return (EvaluationWarning("Different test sets", text, severe=True),)


def _warnings_of_runs(entries: Sequence[_Entry]) -> list[EvaluationWarning]:
    """Return the warnings of every run; one that concerns all runs is given once."""
    names: dict[EvaluationWarning, list[str]] = {}
    for entry in entries:
        # A missing external set is irrelevant to a comparison.
        for warning in find_warnings(
            entry.run, entry.eval_set, entry.scores, has_external_set=True
        ):
            names.setdefault(warning, []).append(entry.name)
    return [
        warning
        if len(affected) == len(entries)
        else replace(warning, text=f"{warning.text} This concerns {', '.join(affected)}.")
        for warning, affected in names.items()
    ]


def _score_table(entries: Sequence[_Entry]) -> Table:
    rows = []
    for score in OVERALL_SCORES[entries[0].run.head]:
        cells = (score_cell(entry.scores, score) for entry in entries)
        rows.append((score_description(score)[0], *cells))
    return Table(
        "Each run by itself",
        ("Score", *(entry.name for entry in entries)),
        tuple(rows),
        note="Value, and under it the 95 % interval over patients. Overlapping intervals do not "
        "mean that there is no difference; see the pairs below."
        + mark_note(cell for row in rows for cell in row),
    )


def _pair_table(found: Sequence[Comparison], *, is_repeated: bool) -> Table:
    rows = tuple(
        (
            f"{one.first}\nagainst {one.second}",
            f"{one.n_images}\nof {one.n_patients} patients",
            f"{_signed(one.difference)} points\n{_points(one)}",
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
        note="Difference of the shares of correct images, with its 95 % interval over patients. "
        "Only first: images that only the first called correctly. p: exact McNemar test, which "
        "assumes independent images and is too small where a patient has many; corrected for the "
        "number of pairs by Holm's method."
        + " The difference is the mean of the repeats; the counts and p are of the first."
        * is_repeated
        + mark_note(cell for row in rows for cell in row),
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
            f"{one.difference:+.3f}\n{one.low:+.3f} to {one.high:+.3f}".replace("-", "−")
            + MARK * (one.interval_method == RULE_OF_THREE),
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
            note="Every image is of another patient, so DeLong's test is valid. Difference of the "
            "areas with its 95 % interval; corrected for all pairs and classes of this table by "
            "Holm's method." + mark_note(cell for row in rows for cell in row),
        ),
    )


def _points(one: Comparison) -> str:
    if math.isnan(one.low):
        return "interval not defined"
    mark = MARK * (one.interval_method == RULE_OF_THREE)
    return f"{_signed(one.low)} to {_signed(one.high)}{mark}"


def _signed(share: float) -> str:
    """Return a difference in percentage points, with a true minus sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return f"< {MIN_P}" if value < MIN_P else f"= {value:.3f}"


def _score_text(row: Mapping[str, object], score: str) -> str:
    value, low, high = (float(str(row[score + end])) for end in ("", "_low", "_high"))
    marked = row[f"{score}_interval_method"] == RULE_OF_THREE
    interval = "" if math.isnan(low) else f"\n{ends_text(low, high, is_rule_of_three=marked)}"
    return f"{rounded(value)}{interval}"


def _costs(row: Mapping[str, object]) -> tuple[str, ...]:
    n_parameters, n_macs, training, inference, n_bytes = (
        float(str(row[name]))
        for name in (
            "n_parameters",
            "n_macs",
            "train_images_per_second",
            "inference_images_per_second",
            "n_bytes",
        )
    )
    return (
        f"{n_parameters / 1e6:.2f} M",
        f"{n_macs / 1e9:.2f} G\nat {row['input_size']} px",
        "no epochs" if math.isnan(training) else f"{training:.1f} img/s",
        f"{inference:.1f} img/s",
        f"{n_bytes / 1e6:.1f} MB",
    )
