"""A linear classifier on standardised features; inner folds choose its regularisation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.class_weight import compute_sample_weight

from glomerulab.errors import TrainingError
from glomerulab.predictions import Head

__all__ = ["LinearFit", "fit_linear"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Fold = tuple[IntArray, IntArray]

MAX_ITERATIONS = 2000
ROUNDING = 1e-6
"""A feature that varies less than this share of its mean is constant up to rounding in float32;
scaled, it would ruin the prediction of an image on which it differs."""


@dataclass(frozen=True)
class LinearFit:
    """Standardisation and weights of a linear classifier."""

    offset: FloatArray
    """Shape (D,): mean of each feature."""
    scale: FloatArray
    """Shape (D,): one over its standard deviation; 0 for a feature that is constant."""
    weights: FloatArray
    """Shape (K, D), of standardised features."""
    bias: FloatArray
    """Shape (K,)."""
    strengths: tuple[float, ...]
    """The chosen inverse regularisation C: one, or under a sigmoid head one per label."""


def fit_linear(
    features: npt.NDArray[np.floating],
    labels: FloatArray,
    patients: npt.NDArray[np.int64],
    *,
    head: Head,
    strengths: Sequence[float],
    n_inner_folds: int = 5,
    is_balanced: bool = False,
    seed: int = 0,
) -> LinearFit:
    """Fit a regularised logistic regression: multinomial, or one per label with unknowns left out.

    Parameters
    ----------
    features : ndarray of float, shape (n, D)
    labels : ndarray of float, shape (n, K)
        1, 0, or NaN where unknown.
    patients : ndarray of int, shape (n,)
        Images of a patient are never divided by an inner fold.
    head : {"softmax", "sigmoid"}
        Softmax uses the images with exactly one label.
    strengths : sequence of float
        Inverse regularisations C, each above 0; the one of the lowest held-out log-loss is taken.
    n_inner_folds : int, default 5
    is_balanced : bool, default False
        Weigh classes equally, in fitting and in choosing.
    seed : int, default 0
        Of the inner folds.

    Raises
    ------
    TrainingError
        If a class is missing, or no strength can be chosen since a class occurs in one patient
        only.
    """
    features = features.astype(np.float64)
    offset, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > ROUNDING * np.abs(offset)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    problem = _Problem((features - offset) * scale, patients, is_balanced, seed)
    if head == "softmax":
        usable = (labels == 1).sum(axis=1) == 1
        targets = np.argmax(labels == 1, axis=1)
        best = problem.best(targets, usable, strengths, n_inner_folds)
        weights, bias = problem.fit(targets, usable, best, n_classes=labels.shape[1])
        return LinearFit(offset, scale, weights, bias, (best,))
    rows, biases, chosen = [], [], []
    for column in labels.T:
        usable, targets = ~np.isnan(column), (column == 1).astype(np.int64)
        best = problem.best(targets, usable, strengths, n_inner_folds)
        weights, bias = problem.fit(targets, usable, best, n_classes=2)
        rows.append(weights[1] - weights[0])
        biases.append(bias[1] - bias[0])
        chosen.append(best)
    return LinearFit(offset, scale, np.stack(rows), np.array(biases), tuple(chosen))


@dataclass(frozen=True)
class _Problem:
    features: FloatArray
    """Standardised, shape (n, D)."""
    patients: npt.NDArray[np.int64]
    is_balanced: bool
    seed: int

    def fit(
        self, targets: IntArray, usable: npt.NDArray[np.bool_], strength: float, *, n_classes: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return weights (n_classes, D) and bias (n_classes,)."""
        model = self._model(strength).fit(self.features[usable], targets[usable])
        if n_classes == 2:  # scikit-learn keeps one row, of the second class
            half = np.concatenate([-model.coef_, model.coef_]) / 2
            return half, np.concatenate([-model.intercept_, model.intercept_]) / 2
        return model.coef_, model.intercept_

    def best(
        self,
        targets: IntArray,
        usable: npt.NDArray[np.bool_],
        strengths: Sequence[float],
        n_folds: int,
    ) -> float:
        """Return the strength of the lowest log-loss on held-out patients."""
        if len(strengths) == 1:
            return strengths[0]
        rows = np.flatnonzero(usable)
        folds = list(self._folds(targets[rows], self.patients[rows], n_folds))
        if not folds:
            raise TrainingError(
                "every division of the training patients leaves a class out, so the strength of "
                "the probe cannot be chosen by patient; give one value in probe.strengths, or add "
                "patients"
            )
        losses = [
            np.mean(
                [self._loss(targets, rows[fit], rows[held_out], one) for fit, held_out in folds]
            )
            for one in strengths
        ]
        return strengths[int(np.argmin(losses))]

    def _folds(self, targets: IntArray, patients: IntArray, n_folds: int) -> Iterator[Fold]:
        """Yield inner folds whose fitting part shows every class."""
        n_wanted = min(n_folds, *(len(set(patients[targets == k])) for k in np.unique(targets)))
        if n_wanted < 2:
            raise TrainingError(
                "a class occurs in the images of one training patient only, so the strength of the "
                "probe cannot be chosen by patient; give one value in probe.strengths, or add "
                "patients"
            )
        kind = StratifiedGroupKFold(n_wanted, shuffle=True, random_state=self.seed)
        for fit, held_out in kind.split(targets, targets, patients):
            if len(held_out) and len(np.unique(targets[fit])) == len(np.unique(targets)):
                yield fit, held_out

    def _loss(self, targets: IntArray, fit: IntArray, held_out: IntArray, strength: float) -> float:
        model = self._model(strength).fit(self.features[fit], targets[fit])
        weight = compute_sample_weight("balanced", targets[held_out]) if self.is_balanced else None
        probabilities = model.predict_proba(self.features[held_out])
        return float(
            log_loss(targets[held_out], probabilities, sample_weight=weight, labels=model.classes_)
        )

    def _model(self, strength: float) -> LogisticRegression:
        return LogisticRegression(
            C=strength,
            max_iter=MAX_ITERATIONS,
            class_weight="balanced" if self.is_balanced else None,
        )
