"""A model card from what the run knows; what it cannot know is left to the author, in words."""

from glomerulab.evaluation.result import EvaluationResult
from glomerulab.reports.run.facts import headline
from glomerulab.reports.run.html import Table

__all__ = ["model_card"]

FOR_THE_AUTHOR = "For the author to fill in."


def model_card(judgement: EvaluationResult) -> Table:
    """Return the model card.

    Parameters
    ----------
    judgement : Judgement

    Returns
    -------
    Table

    Notes
    -----
    The sections are those of Mitchell et al. 2019.
    """
    run = judgement.run
    model = run.config.get("model", {})
    name = str(model.get("name", "not stated")) if isinstance(model, dict) else "not stated"
    training = run.manifest.table.loc[(run.manifest.table["split"] == "train").fillna(value=False)]
    stains = ", ".join(sorted(training["stain"].dropna().unique())) or "unknown"
    labels = ", ".join(label.name for label in run.taxonomy.labels)
    severe = [warning.title for warning in judgement.warnings if warning.severe]
    trained_on = f"{len(training)} images of {training['patient_id'].nunique()} patients"
    made = "; rendered by a program" if run.is_synthetic else ""
    rows = (
        ("Model", f"{name}, {run.head} head; seed {run.config.get('seed', 'not stated')}"),
        ("Answers", f"{labels}, for one image"),
        ("Intended use", "Research on images like those it was trained on, read by a pathologist."),
        ("Not for", "Diagnosis or treatment; any decision about a patient."),
        ("Training data", f"{trained_on}; stains: {stains}{made}"),
        ("Evaluation", headline(judgement.eval_set, judgement.scores)),
        ("Known weaknesses", ", ".join(severe) if severe else "See the warnings above."),
        ("Where the images come from", FOR_THE_AUTHOR),
        ("Who labelled them, and how they agreed", FOR_THE_AUTHOR),
        ("Groups of patients not represented", FOR_THE_AUTHOR),
    )
    return Table("Model card", ("Section", "What is known"), rows, is_settings=True)
