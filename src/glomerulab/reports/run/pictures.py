"""What pixels and the model add to a run's tables; the caller makes it: reports run no model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from glomerulab.cohort.near_duplicates import NearDuplicate
from glomerulab.evaluation.error_analysis import WorstError
from glomerulab.evaluation.warnings import EvaluationWarning

__all__ = ["NO_PICTURES", "Pictures"]

N_NAMED = 3


@dataclass(frozen=True)
class Pictures:
    """Everything about the images of a run that is not in its tables."""

    features: pd.DataFrame | None = None
    """One row per judged image, its id as index: the vector that the classifier saw."""
    explain: Callable[[WorstError], Path | None] | None = None
    """Draws why the model said what it did, and returns the file; None where it cannot be read."""
    near_duplicates: tuple[NearDuplicate, ...] | None = None
    """Pairs of nearly the same picture in two parts; None where nobody looked."""

    def warnings(self) -> tuple[EvaluationWarning, ...]:
        """Return what a reader must know of near-duplicates."""
        if self.near_duplicates is None:
            text = "Nobody looked whether the same picture stands in two parts."
            return (EvaluationWarning("Near-duplicates not looked for", text),)
        if not self.near_duplicates:
            return ()
        named = "; ".join(map(str, self.near_duplicates[:N_NAMED]))
        n_more = len(self.near_duplicates) - N_NAMED
        more = f"; and {n_more} more" if n_more > 0 else ""
        text = (
            f"{len(self.near_duplicates)} pairs of images in different parts are nearly the same "
            f"picture, so that the model may have been judged on what it learned: {named}{more}."
        )
        return (EvaluationWarning("Near-duplicates across parts", text, severe=True),)


NO_PICTURES = Pictures()
"""The tables alone."""
