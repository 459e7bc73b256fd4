"""Whether the model's certainty can be used: calibration, and sets that hold the truth."""

from glomerulab.evaluation.calibration import CalibrationSummary
from glomerulab.evaluation.result import EvaluationResult, Fitted
from glomerulab.evaluation.uncertainty import ConformalResult
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_words import percent, rounded

__all__ = ["certainty_tables"]

MEASURES = (
    ("brier", "Brier score\nmean squared distance from the truth: lower is better"),
    ("negative_log_likelihood", "Negative log-likelihood\nlower is better"),
    ("ece_equal_width", "ECE, bins of equal width\nexpected calibration error: 0 is right"),
    ("ece_equal_mass", "ECE, bins of equal mass\nthe same with as many images in each bin"),
    ("slope", "Calibration slope\n1 is right; below 1 the probabilities are too extreme"),
    ("intercept", "Calibration in the large\n0 is right; below 0 they are too high"),
)


def certainty_tables(judgement: EvaluationResult) -> tuple[Table, ...]:
    """Return the tables of calibration and, where there is a validation part, of sets.

    Parameters
    ----------
    judgement : Judgement

    Returns
    -------
    tuple of Table
    """
    if judgement.fitted is None:
        return (_calibration(judgement.calibration, None, _why_not_fitted(judgement)),)
    fitted = judgement.fitted
    answers, unit = (
        ("classes", "images")
        if judgement.eval_set.head == "softmax"
        else ("answers (absent, present)", "known labels")
    )
    return (
        _calibration(judgement.calibration, fitted),
        _conformal(fitted.conformal, answers, unit),
    )


def _why_not_fitted(judgement: EvaluationResult) -> str:
    if judgement.split == "validation":
        return "No temperature is fitted: this is the validation part itself."
    return "There is no validation part to fit a temperature on."


def _calibration(before: CalibrationSummary, fitted: Fitted | None, why_not: str = "") -> Table:
    if fitted is None:
        return Table(
            "Calibration",
            ("Measure", "As trained"),
            tuple((text, rounded(getattr(before, name))) for name, text in MEASURES),
            note=why_not,
        )
    rows = tuple(
        (text, rounded(getattr(before, name)), rounded(getattr(fitted.calibration, name)))
        for name, text in MEASURES
    )
    return Table(
        "Calibration",
        ("Measure", "As trained", "Scaled"),
        rows,
        note=f"Scaled: with temperature {fitted.temperature:.2f}, fitted on {fitted.n_images} "
        "validation images; above 1 the model was too sure of itself. No answer changes by it, "
        "only how sure the model says it is.",
    )


def _conformal(results: tuple[ConformalResult, ...], answers: str, unit: str) -> Table:
    rows = tuple(
        (
            percent(result.stated_coverage),
            percent(result.coverage),
            f"{result.mean_size:.2f}",
            percent(result.share_single),
            percent(result.share_empty),
        )
        for result in results
    )
    return Table(
        "Sets that hold the truth",
        ("Promised", "Found", "Mean size", "One answer", "No answer"),
        rows,
        note=f"Instead of one answer the model may give a set of {answers} that holds the truth as "
        "often as was promised (split conformal prediction, fitted on validation). A set of one "
        "answer is a clear answer, which may be wrong; larger or empty ones ask for a person. The "
        f"promise takes the images as independent; these are fitted on {results[0].n_fitted} "
        f"{unit} of {results[0].n_patients_fitted} patients. Where a patient's images "
        "resemble each other and the patients are few, the truth is held less often than "
        "promised.",
    )
