"""Tables of a run's report: scores, calibration, subgroups, and an external set; CSV files."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.evaluation.calibration import CalibrationSummary
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import MARK, RULE_OF_THREE
from glomerulab.evaluation.result import EvaluationResult, ValidationFit
from glomerulab.evaluation.scores import OVERALL_SCORES
from glomerulab.evaluation.uncertainty import ConformalResult
from glomerulab.reports.run.html import Table
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.tables import without_formulas

__all__ = ["write_table_csv"]

NOT_DEFINED = "not defined"
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

SCORE_DESCRIPTIONS = {
    "accuracy": ("Accuracy", "share of images called correctly"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall, each class weighted equally"),
    "exact_match": ("Exact match", "share of images with every label correct"),
    "label_accuracy": ("Label accuracy", "share of single label calls that are correct"),
    "precision": ("Precision", "share of positive calls that are correct"),
    "recall": ("Recall", "sensitivity: share of positives that are called"),
    "specificity": ("Specificity", "share of negatives that are not called"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "mcc": ("MCC", "Matthews correlation: 0 is chance, 1 perfect"),
    "kappa": ("Cohen's κ", "agreement beyond chance: 0 is chance, 1 perfect"),
    "roc_auc": ("ROC-AUC", "probability that a positive ranks above a negative"),
    "average_precision": ("Average precision", "area under the precision-recall curve"),
}
"""Display name and meaning by score; a macro score takes those of its single score."""

SHOWN_PER_LABEL = ("recall", "specificity", "precision", "f1", "roc_auc", "average_precision")
SHOWN_PER_EXTERNAL_LABEL = ("recall", "specificity", "roc_auc")

CALIBRATION_MEASURES = (
    ("brier", "Brier score\nmean squared distance from the truth: lower is better"),
    ("negative_log_likelihood", "Negative log-likelihood\nlower is better"),
    ("ece_equal_width", "ECE, bins of equal width\nexpected calibration error: 0 is best"),
    ("ece_equal_mass", "ECE, bins of equal mass\nwith an equal number of images in each bin"),
    ("slope", "Calibration slope\n1 is best; below 1 the probabilities are too extreme"),
    ("intercept", "Calibration in the large\n0 is best; below 0 the probabilities are too high"),
)

SUBGROUP_TITLES = {
    "stain": "By stain",
    "agreement": "By agreement of the annotators",
    "slide_id": "By slide",
    "patient_id": "By patient",
}
MAX_SUBGROUPS = 12


def write_table_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people as CSV, atomically; NaN becomes an empty cell."""
    with atomic_write(path) as temporary:
        without_formulas(table).to_csv(temporary, index=False, na_rep="")


def score_description(score: str) -> tuple[str, str]:
    """Return the display name and the meaning of a score of `glomerulab.evaluation.scores`."""
    if score.startswith("macro_"):
        name, meaning = SCORE_DESCRIPTIONS[score.removeprefix("macro_")]
        lower = name if name[1:2].isupper() or name[1:2].isdigit() else name[0].lower() + name[1:]
        return f"Macro {lower}", f"mean over the classes; {meaning}"
    return SCORE_DESCRIPTIONS[score]


def percent(share: float) -> str:
    """Return a share in per cent with one decimal, or "not defined"."""
    return NOT_DEFINED if math.isnan(share) else f"{100 * share:.1f}{NO_BREAK_SPACE}%"


def rounded(value: float) -> str:
    """Return a score with three decimals, or "not defined"."""
    return NOT_DEFINED if math.isnan(value) else f"{value:.3f}"


@dataclass(frozen=True, slots=True)
class Score:
    """One score with its interval; NaN where not defined."""

    value: float
    low: float
    high: float
    is_rule_of_three: bool
    """Whether the interval is by the rule of three, since resampling gives it no width."""


def score_of(scores: pd.DataFrame, score: str, label: str | None = None) -> Score:
    """Return one score of a score table, by default of all labels together."""
    of_label = (
        scores["label"].isna() if label is None else (scores["label"] == label).fillna(value=False)
    )
    row = scores.loc[of_label.astype(bool) & (scores["score"] == score)].iloc[0]
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    return Score(value, low, high, _is_rule_of_three(row))


def ends_text(low: float, high: float, *, is_rule_of_three: bool = False) -> str:
    """Return the ends of an interval with three decimals, marked if by the rule of three."""
    return f"{low:.3f} to {high:.3f}{MARK * is_rule_of_three}"


def mark_note(texts: Iterable[str]) -> str:
    """Return what `MARK` means, where any text has it; else nothing."""
    if not any(MARK in text for text in texts):
        return ""
    return f" {MARK}: every resample gives the same score, so the interval is by the rule of three."


def _is_rule_of_three(row: Mapping[Hashable, Any] | pd.Series) -> bool:
    method = row["interval_method"]
    return bool(pd.notna(method) and method == RULE_OF_THREE)


def score_cell(scores: pd.DataFrame, score: str, label: str | None = None) -> str:
    """Return a score and, on a second line, its interval where that is defined."""
    found = score_of(scores, score, label)
    if math.isnan(found.low):
        return rounded(found.value)
    return f"{rounded(found.value)}\n{_interval(found)}"


def overall_table(eval_set: EvalSet, scores: pd.DataFrame) -> Table:
    """Return the scores of all labels together, with interval and meaning."""
    rows = []
    for score in OVERALL_SCORES[eval_set.head]:
        found = score_of(scores, score)
        name, meaning = score_description(score)
        rows.append((f"{name}\n{meaning}", rounded(found.value), _interval(found)))
    return Table(
        "Scores",
        ("Score", "Value", "95 % interval"),
        tuple(rows),
        note="Intervals are from resampling patients, not images, since images of one patient are "
        f"similar. “{NOT_DEFINED}”: too few images or patients."
        + mark_note(row[-1] for row in rows),
    )


def label_table(eval_set: EvalSet, scores: pd.DataFrame) -> Table:
    """Return the one-vs-rest scores of each label, with counts."""
    rows = []
    for k, label in enumerate(eval_set.taxonomy.labels):
        found = [score_of(scores, name, label.id) for name in SHOWN_PER_LABEL]
        cells = [f"{rounded(one.value)}\n{_interval(one)}" for one in found]
        counts = f"{eval_set.n_positive[k]}\nof {eval_set.n_patients_positive[k]} patients"
        rows.append((label.name, counts, *cells))
    columns = ("Class", "Images", *(score_description(name)[0] for name in SHOWN_PER_LABEL))
    return Table(
        "Each class against the rest",
        columns,
        tuple(rows),
        note="Value and 95 % interval. Recall (sensitivity): share of the images of "
        "the class that are called. Precision: share of the called images that are of the class."
        + mark_note(cell for row in rows for cell in row),
    )


def delong_table(eval_set: EvalSet, delong: pd.DataFrame) -> tuple[Table, ...]:
    """Return the ROC areas by DeLong, where there are any."""
    if delong.empty:
        return ()
    names = {label.id: label.name for label in eval_set.taxonomy.labels}
    rows = tuple(
        (
            names[row["label"]],
            rounded(row["auc"]),
            ends_text(row["low"], row["high"], is_rule_of_three=_is_rule_of_three(row)),
        )
        for row in delong.to_dict("records")
    )
    return (
        Table(
            "ROC-AUC by DeLong",
            ("Class", "ROC-AUC", "95 % interval"),
            rows,
            note="Every evaluated image is of another patient, so DeLong's variance is valid and "
            "comparable with papers that report it." + mark_note(row[-1] for row in rows),
        ),
    )


def external_tables(internal: EvaluationResult, external: EvaluationResult) -> tuple[Table, ...]:
    """Return the scores of a model on its own and on an external set, side by side."""
    return (_external_overall(internal, external), _external_per_label(internal, external))


def fold_table(result: EvaluationResult) -> tuple[Table, ...]:
    """Return how the scores vary over folds and repeats, for a cross-validation."""
    found = result.fold_variation
    if found.empty:
        return ()
    n_folds, n_repeats = (int(found[name].max()) for name in ("n_folds", "n_repeats"))
    rows = tuple(
        (
            score_description(str(row["score"]))[0],
            score_cell(result.scores, str(row["score"])),
            _mean_and_sd(row["mean_of_folds"], row["sd_of_folds"]),
            _mean_and_sd(row["mean_of_repeats"], row["sd_of_repeats"]),
        )
        for _, row in found.iterrows()
    )
    return (
        Table(
            "Over folds and repeats",
            (
                "Score",
                "All patients",
                count_noun(n_folds, "training"),
                count_noun(n_repeats, "repeat"),
            ),
            rows,
            note="Every image was predicted by a model that did not see its patient. All patients: "
            "the score over all of them, the mean of the repeats, and its interval over patients. "
            "Trainings and repeats: mean ± standard deviation; folds are small and share training "
            "images, so their deviation is no interval. Figures, calibration, subgroups and "
            "errors are of the first repeat.",
        ),
    )


def _mean_and_sd(mean: float, deviation: float) -> str:
    return rounded(mean) if math.isnan(deviation) else f"{rounded(mean)} ± {deviation:.3f}"


def certainty_tables(result: EvaluationResult) -> tuple[Table, ...]:
    """Return the tables of calibration and, with a validation split, of prediction sets."""
    if not result.eval_set.has_probabilities:
        return ()
    if result.fitted is None:
        reason = (
            "No temperature is fitted, since this is the validation split itself."
            if result.split == "validation"
            else "There is no validation split to fit a temperature on."
        )
        return (_calibration_table(result.calibration, None, reason),)
    outcomes, unit = (
        ("classes", "images")
        if result.eval_set.head == "softmax"
        else ("outcomes (absent, present)", "known labels")
    )
    return (
        _calibration_table(result.calibration, result.fitted),
        *(
            (_conformal_table(result.fitted.conformal, outcomes, unit),)
            if result.fitted.conformal
            else ()
        ),
    )


def subgroup_tables(result: EvaluationResult) -> tuple[Table, ...]:
    """Return one table per subgroup column; of long ones the groups with the lowest accuracy."""
    if result.subgroups.empty:
        return ()
    found = result.subgroups
    return tuple(
        _subgroup_table(
            SUBGROUP_TITLES.get(column, f"By {column}"), found.loc[found["column"] == column]
        )
        for column in found["column"].drop_duplicates()
    )


def _external_overall(internal: EvaluationResult, external: EvaluationResult) -> Table:
    both = (internal, external)
    rows = [
        (
            "Images",
            *(f"{one.eval_set.n_images}\nof {one.eval_set.n_patients} patients" for one in both),
        )
    ]
    rows += [
        (score_description(score)[0], *(score_cell(one.scores, score) for one in both))
        for score in OVERALL_SCORES[internal.run.head]
    ]
    rows += [
        ("Brier score", *(rounded(one.calibration.brier) for one in both)),
        ("ECE, bins of equal mass", *(rounded(one.calibration.ece_equal_mass) for one in both)),
    ]
    return Table(
        "Internal and external, side by side",
        ("Score", f"Internal ({internal.split})", "External"),
        tuple(rows),
        note="Value, and under it the 95 % interval over patients. The same weights predicted both "
        "sets; nothing was fitted on the external one. Lower external scores are common; where the "
        "class frequencies differ, compare recall, specificity and AUC first."
        + mark_note(cell for row in rows for cell in row),
    )


def _external_per_label(internal: EvaluationResult, external: EvaluationResult) -> Table:
    rows = []
    for k, label in enumerate(internal.run.taxonomy.labels):
        counts = f"{internal.eval_set.n_positive[k]} / {external.eval_set.n_positive[k]}"
        cells = (
            "\n".join(_one_line(one, score, label.id) for one in (internal, external))
            for score in SHOWN_PER_EXTERNAL_LABEL
        )
        rows.append((label.name, counts, *cells))
    return Table(
        "Each class, internal and external",
        ("Class", "Images", *(score_description(name)[0] for name in SHOWN_PER_EXTERNAL_LABEL)),
        tuple(rows),
        note="Images: internal / external. In each cell first the internal value, then the "
        "external one, each with its 95 % interval."
        + mark_note(cell for row in rows for cell in row),
    )


def _one_line(result: EvaluationResult, score: str, label: str) -> str:
    """Return a score with its interval in brackets."""
    value, _, interval = score_cell(result.scores, score, label).partition("\n")
    return f"{value} ({interval})" if interval else value


def _calibration_table(
    before: CalibrationSummary, fitted: ValidationFit | None, why_not: str = ""
) -> Table:
    if fitted is None:
        return Table(
            "Calibration",
            ("Measure", "Uncalibrated"),
            tuple((text, rounded(getattr(before, name))) for name, text in CALIBRATION_MEASURES),
            note=why_not,
        )
    rows = tuple(
        (text, rounded(getattr(before, name)), rounded(getattr(fitted.calibration, name)))
        for name, text in CALIBRATION_MEASURES
    )
    return Table(
        "Calibration",
        ("Measure", "Uncalibrated", "Scaled"),
        rows,
        note=f"Scaled: with temperature {fitted.temperature:.2f}, fitted on {fitted.n_images} "
        + (
            "held-out images (each fold with that of the others)"
            if fitted.by_fold
            else "validation images"
        )
        + "; above 1 the model was overconfident. Scaling changes probabilities, not calls.",
    )


def _conformal_table(results: tuple[ConformalResult, ...], outcomes: str, unit: str) -> Table:
    rows = tuple(
        (
            percent(one.stated_coverage),
            percent(one.coverage),
            f"{one.mean_size:.2f}",
            percent(one.share_single),
            percent(one.share_empty),
        )
        for one in results
    )
    return Table(
        "Conformal prediction sets",
        ("Stated coverage", "Observed", "Mean size", "One outcome", "Empty"),
        rows,
        note=f"Instead of one call the model may return a set of {outcomes} that contains the "
        "truth with a stated probability (split conformal prediction, fitted on validation). A set "
        "of one is a clear call, which may be wrong; larger and empty sets need a person. "
        f"The guarantee assumes independent images; these sets are fitted on {results[0].n_fitted} "
        f"{unit} of {results[0].n_patients_fitted} patients. With few patients whose images are "
        "similar, the observed coverage is lower than stated.",
    )


def _subgroup_table(title: str, groups: pd.DataFrame) -> Table:
    shown = groups.sort_values(["share_right", "n_images"], ascending=[True, False])
    note = (
        "Correct: images with every known label correct; under it the 95 % interval, for groups of "
        "several patients."
    )
    if len(groups) > MAX_SUBGROUPS:
        shown = shown.head(MAX_SUBGROUPS)
        note += f" The {MAX_SUBGROUPS} lowest of {len(groups)}; subgroups.csv lists all."
    rows = tuple(
        (
            str(row["group"]),
            str(row["n_images"]),
            str(row["n_patients"]),
            f"{percent(row['share_right'])}\n{row['n_right']} of {row['n_images']}"
            + (
                ""
                if math.isnan(row["low"])
                else f"\n{percent(row['low'])} to {percent(row['high'])}"
                f"{MARK * _is_rule_of_three(row)}"
            ),
        )
        for row in shown.to_dict("records")
    )
    note += mark_note(row[-1] for row in rows)
    return Table(title, ("Group", "Images", "Patients", "Correct"), rows, note=note)


def _interval(found: Score) -> str:
    if math.isnan(found.value):
        return ""
    if math.isnan(found.low):
        return NOT_DEFINED
    return ends_text(found.low, found.high, is_rule_of_three=found.is_rule_of_three)
