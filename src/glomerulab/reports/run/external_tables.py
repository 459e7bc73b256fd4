"""The internal and the external set side by side: all labels together, and label by label."""

import math

from glomerulab.evaluation.result import EvaluationResult
from glomerulab.evaluation.scores import OVERALL_SCORES
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_tables import score_of
from glomerulab.reports.run.score_words import rounded, score_words

__all__ = ["external_tables"]

PER_LABEL = ("recall", "specificity", "roc_auc")


def external_tables(internal: EvaluationResult, external: EvaluationResult) -> tuple[Table, ...]:
    """Return the scores of both sets beside each other.

    Parameters
    ----------
    internal, external : Judgement
        Of one model.

    Returns
    -------
    tuple of Table
    """
    return (_overall(internal, external), _per_label(internal, external))


def _overall(internal: EvaluationResult, external: EvaluationResult) -> Table:
    both = (internal, external)
    rows = [
        (
            "Images",
            *(f"{one.eval_set.n_images}\nof {one.eval_set.n_patients} patients" for one in both),
        )
    ]
    rows += [
        (score_words(score)[0], *(_cell(one, score) for one in both))
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
        note="Value, and under it the 95 % interval over patients. The external set was judged by "
        "the same weights; nothing was fitted on it. A fall outside is what to expect; where the "
        "classes are not equally frequent in both, compare recall, specificity and AUC first.",
    )


def _per_label(internal: EvaluationResult, external: EvaluationResult) -> Table:
    rows = []
    for k, label in enumerate(internal.run.taxonomy.labels):
        counts = f"{internal.eval_set.n_positive[k]} / {external.eval_set.n_positive[k]}"
        cells = [
            f"{_cell(internal, score, label.id)}\n{_cell(external, score, label.id)}"
            for score in PER_LABEL
        ]
        rows.append((label.name, counts, *(_stacked(cell) for cell in cells)))
    return Table(
        "Each class, internal and external",
        ("Class", "Images", *(score_words(name)[0] for name in PER_LABEL)),
        tuple(rows),
        note="Images: internal / external. In each cell first the internal value, then the "
        "external one, each with its 95 % interval.",
    )


def _cell(judgement: EvaluationResult, score: str, label: str | None = None) -> str:
    found = score_of(judgement.scores, score, label)
    if math.isnan(found["low"]):
        return rounded(found["value"])
    return f"{rounded(found['value'])}\n{found['low']:.3f} to {found['high']:.3f}"


def _stacked(cell: str) -> str:
    """Put value and interval of each set on one line."""
    lines = cell.split("\n")
    found: list[str] = []
    for line in lines:
        if " to " in line:
            found[-1] += f" ({line})"
        else:
            found.append(line)
    return "\n".join(found)
