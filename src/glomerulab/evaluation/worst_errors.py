"""The images a model is most wrong about, most convinced first."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.evaluation.eval_set import EvalSet

__all__ = ["WorstError", "worst_errors"]


@dataclass(frozen=True, slots=True)
class WorstError:
    """One image and what was wrong about it."""

    image_id: str
    true_label: str
    """Display names of what people said."""
    called: str
    """Display names of what the model said."""
    confidence: float
    """Probability the model gave to its wrong answer, from 0 to 1."""
    label_id: str
    """The label it is about: called though absent, or missed though present."""


def worst_errors(eval_set: EvalSet, *, n_most: int = 12) -> list[WorstError]:
    """Find the wrong images, those with the most convinced wrong answer first.

    Parameters
    ----------
    judged : Judged
    n_most : int, default 12

    Returns
    -------
    list of WorstError
        At most `n_most`; equally wrong images stand in the order of the table.
    """
    truth = eval_set.labels == 1
    known = ~np.isnan(eval_set.labels)
    wrong_label = known & (eval_set.calls != truth)
    # How much probability went to the wrong answer of each label.
    wrongness = np.where(eval_set.calls, eval_set.probabilities, 1.0 - eval_set.probabilities)
    if eval_set.head == "softmax":
        wrong_label &= eval_set.calls  # an error is counted once, by what was answered
    by_label = np.where(wrong_label, wrongness, -1.0)
    conviction = by_label.max(axis=1)
    order = np.argsort(-conviction, kind="stable")[:n_most]
    names = [label.name for label in eval_set.taxonomy.labels]
    return [
        WorstError(
            image_id=str(eval_set.rows["image_id"].iloc[place]),
            true_label=_joined(names, truth[place]),
            called=_joined(names, eval_set.calls[place]),
            confidence=float(conviction[place]),
            label_id=eval_set.taxonomy.label_ids[int(by_label[place].argmax())],
        )
        for place in order
        if conviction[place] >= 0
    ]


def _joined(names: list[str], flags: npt.NDArray[np.bool_]) -> str:
    chosen = [name for name, flag in zip(names, flags, strict=True) if flag]
    return " + ".join(chosen) or "none"
