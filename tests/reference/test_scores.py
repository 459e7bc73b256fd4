"""Every score against scikit-learn, on random samples of both heads."""

import numpy as np
import pytest
from sklearn import metrics

from glomerulab.evaluation.intervals import patient_weights
from glomerulab.evaluation.metrics import resampled_discrimination
from glomerulab.evaluation.scores import score_table
from tests.support.eval_sets import random_sigmoid, random_softmax


@pytest.fixture(scope="module")
def softmax():
    eval_set = random_softmax(seed=3)
    return eval_set, score_table(eval_set)


@pytest.fixture(scope="module")
def sigmoid():
    eval_set = random_sigmoid(seed=3)
    return eval_set, score_table(eval_set)


def _value(table, score, label=None):
    chosen = table["label"].isna() if label is None else table["label"] == label
    return table.loc[chosen.fillna(value=False) & (table["score"] == score), "value"].item()


def test_overall_detection_scores_one_class_models_are_those_of_scikit_learn(softmax):
    eval_set, table = softmax
    truth, decision = eval_set.truth, eval_set.decision
    expected = {
        "accuracy": metrics.accuracy_score(truth, decision),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, decision),
        "macro_precision": metrics.precision_score(truth, decision, average="macro"),
        "macro_recall": metrics.recall_score(truth, decision, average="macro"),
        "macro_f1": metrics.f1_score(truth, decision, average="macro"),
        "mcc": metrics.matthews_corrcoef(truth, decision),
        "kappa": metrics.cohen_kappa_score(truth, decision),
        "macro_roc_auc": metrics.roc_auc_score(truth, eval_set.probabilities, multi_class="ovr"),
        "macro_average_precision": metrics.average_precision_score(truth, eval_set.probabilities),
    }
    for score, value in expected.items():
        assert _value(table, score) == pytest.approx(value, abs=1e-12), score


def test_detection_scores_each_class_are_those_of_scikit_learn(softmax):
    eval_set, table = softmax
    for k, label_id in enumerate(eval_set.taxonomy.label_ids):
        truth, call = eval_set.truth == k, eval_set.decision == k
        expected = {
            "precision": metrics.precision_score(truth, call),
            "recall": metrics.recall_score(truth, call),
            "specificity": metrics.recall_score(~truth, ~call),
            "f1": metrics.f1_score(truth, call),
            "mcc": metrics.matthews_corrcoef(truth, call),
            "kappa": metrics.cohen_kappa_score(truth, call),
            "roc_auc": metrics.roc_auc_score(truth, eval_set.probabilities[:, k]),
            "average_precision": metrics.average_precision_score(
                truth, eval_set.probabilities[:, k]
            ),
        }
        for score, value in expected.items():
            assert _value(table, score, label_id) == pytest.approx(value, abs=1e-12), score


def test_multi_label_scores_leave_unknown_labels_out(sigmoid):
    eval_set, table = sigmoid
    for k, label_id in enumerate(eval_set.taxonomy.label_ids):
        known = ~np.isnan(eval_set.labels[:, k])
        truth, call = eval_set.labels[known, k] == 1, eval_set.calls[known, k]
        probability = eval_set.probabilities[known, k]
        assert _value(table, "f1", label_id) == pytest.approx(metrics.f1_score(truth, call))
        assert _value(table, "kappa", label_id) == pytest.approx(
            metrics.cohen_kappa_score(truth, call)
        )
        assert _value(table, "roc_auc", label_id) == pytest.approx(
            metrics.roc_auc_score(truth, probability)
        )


def test_exact_match_is_scikit_learns_subset_accuracy(sigmoid):
    eval_set, table = sigmoid
    known = ~np.isnan(eval_set.labels).any(axis=1)
    expected = metrics.accuracy_score(eval_set.labels[known] == 1, eval_set.calls[known])
    assert _value(table, "exact_match") == pytest.approx(expected)


def test_areas_of_resamples_are_scikit_learns_with_sample_weights(sigmoid):
    eval_set, _ = sigmoid  # its probabilities have ties
    weights = patient_weights(eval_set.n_patients, n_resamples=2000, seed=1)[:40]
    for k in range(eval_set.n_labels):
        labels, scores = eval_set.labels[:, k], eval_set.probabilities[:, k]
        known = ~np.isnan(labels)
        auc, ap = resampled_discrimination(labels, scores, eval_set.patients, weights)
        for r, of_patient in enumerate(weights):
            image_weight = of_patient[eval_set.patients[known]]
            arguments = (labels[known], scores[known])
            assert auc[r] == pytest.approx(
                metrics.roc_auc_score(*arguments, sample_weight=image_weight)
            )
            assert ap[r] == pytest.approx(
                metrics.average_precision_score(*arguments, sample_weight=image_weight)
            )


def test_the_interval_is_that_of_a_plain_loop_over_resampled_patients(softmax):
    eval_set, table = softmax
    rng = np.random.default_rng(11)
    right = eval_set.truth == eval_set.decision
    of_patient = [right[eval_set.patients == p] for p in range(eval_set.n_patients)]
    drawn = [
        np.concatenate([of_patient[p] for p in rng.integers(eval_set.n_patients, size=30)]).mean()
        for _ in range(4000)
    ]
    row = table.loc[table["label"].isna() & (table["score"] == "accuracy")].iloc[0]
    assert row["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.006)
    assert row["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
