"""Every score against scikit-learn, on random samples of both heads."""

import numpy as np
import pytest
from sklearn import metrics

from glomerulab.evaluation.discrimination import resampled_discrimination
from glomerulab.evaluation.intervals import patient_weights
from glomerulab.evaluation.scores import score_table
from tests.support.judged_samples import random_sigmoid, random_softmax


@pytest.fixture(scope="module")
def softmax():
    judged = random_softmax(seed=3)
    return judged, score_table(judged)


@pytest.fixture(scope="module")
def sigmoid():
    judged = random_sigmoid(seed=3)
    return judged, score_table(judged)


def _value(table, score, label=None):
    chosen = table["label"].isna() if label is None else table["label"] == label
    return table.loc[chosen.fillna(value=False) & (table["score"] == score), "value"].item()


def test_overall_scores_of_one_class_models_are_those_of_scikit_learn(softmax):
    judged, table = softmax
    truth, decision = judged.truth, judged.decision
    expected = {
        "accuracy": metrics.accuracy_score(truth, decision),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, decision),
        "macro_precision": metrics.precision_score(truth, decision, average="macro"),
        "macro_recall": metrics.recall_score(truth, decision, average="macro"),
        "macro_f1": metrics.f1_score(truth, decision, average="macro"),
        "mcc": metrics.matthews_corrcoef(truth, decision),
        "kappa": metrics.cohen_kappa_score(truth, decision),
        "macro_roc_auc": metrics.roc_auc_score(truth, judged.probabilities, multi_class="ovr"),
        "macro_average_precision": metrics.average_precision_score(truth, judged.probabilities),
    }
    for score, value in expected.items():
        assert _value(table, score) == pytest.approx(value, abs=1e-12), score


def test_scores_of_each_class_are_those_of_scikit_learn(softmax):
    judged, table = softmax
    for k, label_id in enumerate(judged.taxonomy.label_ids):
        truth, call = judged.truth == k, judged.decision == k
        expected = {
            "precision": metrics.precision_score(truth, call),
            "recall": metrics.recall_score(truth, call),
            "specificity": metrics.recall_score(~truth, ~call),
            "f1": metrics.f1_score(truth, call),
            "mcc": metrics.matthews_corrcoef(truth, call),
            "kappa": metrics.cohen_kappa_score(truth, call),
            "roc_auc": metrics.roc_auc_score(truth, judged.probabilities[:, k]),
            "average_precision": metrics.average_precision_score(truth, judged.probabilities[:, k]),
        }
        for score, value in expected.items():
            assert _value(table, score, label_id) == pytest.approx(value, abs=1e-12), score


def test_multi_label_scores_leave_unknown_labels_out(sigmoid):
    judged, table = sigmoid
    for k, label_id in enumerate(judged.taxonomy.label_ids):
        known = ~np.isnan(judged.labels[:, k])
        truth, call = judged.labels[known, k] == 1, judged.calls[known, k]
        probability = judged.probabilities[known, k]
        assert _value(table, "f1", label_id) == pytest.approx(metrics.f1_score(truth, call))
        assert _value(table, "kappa", label_id) == pytest.approx(
            metrics.cohen_kappa_score(truth, call)
        )
        assert _value(table, "roc_auc", label_id) == pytest.approx(
            metrics.roc_auc_score(truth, probability)
        )


def test_exact_match_is_scikit_learns_subset_accuracy(sigmoid):
    judged, table = sigmoid
    known = ~np.isnan(judged.labels).any(axis=1)
    expected = metrics.accuracy_score(judged.labels[known] == 1, judged.calls[known])
    assert _value(table, "exact_match") == pytest.approx(expected)


def test_areas_of_resamples_are_scikit_learns_with_sample_weights(sigmoid):
    judged, _ = sigmoid  # its probabilities have ties
    weights = patient_weights(judged.n_patients, n_resamples=2000, seed=1)[:40]
    for k in range(judged.n_labels):
        labels, scores = judged.labels[:, k], judged.probabilities[:, k]
        known = ~np.isnan(labels)
        auc, ap = resampled_discrimination(labels, scores, judged.patients, weights)
        for r, of_patient in enumerate(weights):
            image_weight = of_patient[judged.patients[known]]
            arguments = (labels[known], scores[known])
            assert auc[r] == pytest.approx(
                metrics.roc_auc_score(*arguments, sample_weight=image_weight)
            )
            assert ap[r] == pytest.approx(
                metrics.average_precision_score(*arguments, sample_weight=image_weight)
            )


def test_the_interval_is_that_of_a_plain_loop_over_resampled_patients(softmax):
    judged, table = softmax
    rng = np.random.default_rng(11)
    right = judged.truth == judged.decision
    of_patient = [right[judged.patients == p] for p in range(judged.n_patients)]
    drawn = [
        np.concatenate([of_patient[p] for p in rng.integers(judged.n_patients, size=30)]).mean()
        for _ in range(4000)
    ]
    row = table.loc[table["label"].isna() & (table["score"] == "accuracy")].iloc[0]
    assert row["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.006)
    assert row["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
