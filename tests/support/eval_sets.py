"""Small evaluation sets from a seed."""

import numpy as np
import pandas as pd

from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.predictions import predictions_table
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = ["PAPER", "eval_set_from", "random_sigmoid", "random_softmax"]

PAPER = load_taxonomy("paper")


def eval_set_from(
    labels, probabilities, patients=None, *, head="softmax", taxonomy: Taxonomy = PAPER
):
    """Build an EvalSet from arrays of shape (n, K); by default each image has its own patient."""
    labels = np.asarray(labels, dtype=float)
    names = range(len(labels)) if patients is None else patients
    rows = pd.DataFrame(
        {
            "image_id": [f"i{place}" for place in range(len(labels))],
            "patient_id": pd.array([None if p is None else f"p{p}" for p in names], dtype="string"),
            "split": "test",
        }
    )
    for k, label_id in enumerate(taxonomy.label_ids):
        rows[label_id] = pd.array(
            [None if np.isnan(value) else int(value) for value in labels[:, k]], dtype="Int8"
        )
    table = predictions_table(rows, np.asarray(probabilities, dtype=float), taxonomy)
    return eval_set_of_split(table, taxonomy, head=head)


def random_softmax(seed=0, n=240, n_patients=30, n_classes=4) -> EvalSet:
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    logits = 1.5 * np.eye(n_classes)[truth] + rng.normal(size=(n, n_classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return eval_set_from(np.eye(n_classes)[truth], probabilities, rng.integers(n_patients, size=n))


def random_sigmoid(seed=0, n=240, n_patients=30) -> EvalSet:
    """Some labels unknown, probabilities rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(float)
    probabilities = 1 / (1 + np.exp(-(2.0 * labels - 1 + rng.normal(size=(n, 4)))))
    labels[rng.random((n, 4)) < 0.1] = np.nan
    patients = rng.integers(n_patients, size=n)
    return eval_set_from(labels, probabilities.round(2), patients, head="sigmoid")
