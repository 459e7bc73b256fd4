import numpy as np
import pytest

from glomerulab.evaluation.scores import LABEL_SCORES, OVERALL_SCORES, score_table
from tests.support.eval_sets import eval_set_from, random_sigmoid, random_softmax


def _row(table, score, label=None):
    chosen = table["label"].isna() if label is None else table["label"] == label
    return table.loc[chosen.fillna(value=False) & (table["score"] == score)].iloc[0]


def test_the_table_holds_every_score_once():
    table = score_table(random_softmax())
    assert len(table) == len(OVERALL_SCORES["softmax"]) + 4 * len(LABEL_SCORES)
    assert not table.duplicated(["label", "score"]).any()


@pytest.mark.parametrize(
    "eval_set", [random_softmax(), random_sigmoid()], ids=["softmax", "sigmoid"]
)
def test_every_interval_holds_its_value(eval_set):
    table = score_table(eval_set)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_the_same_seed_gives_the_same_table():
    first, again = (score_table(random_softmax(), seed=5) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(score_table(random_softmax(), seed=6))


def test_an_absent_class_is_not_defined_and_macro_scores_leave_it_out():
    eval_set = random_softmax()
    present = eval_set.truth != 3
    table = score_table(
        eval_set_from(
            eval_set.labels[present], eval_set.probabilities[present], eval_set.patients[present]
        )
    )
    for score in ("recall", "precision", "f1", "roc_auc", "average_precision", "mcc", "kappa"):
        assert np.isnan(_row(table, score, "cgn")["value"]), score
    assert not np.isnan(_row(table, "specificity", "cgn")["value"])
    others = [_row(table, "recall", label)["value"] for label in ("normal", "mspgn", "fsg")]
    assert _row(table, "macro_recall")["value"] == pytest.approx(np.mean(others))


def test_a_class_never_called_leaves_precision_and_its_mean_undefined():
    labels = np.eye(4)[np.tile([0, 1, 2, 3], 10)]
    probabilities = np.tile([0.4, 0.3, 0.29, 0.01], (40, 1))
    table = score_table(eval_set_from(labels, probabilities))
    assert np.isnan(_row(table, "precision", "cgn")["value"])
    assert np.isnan(_row(table, "macro_precision")["value"])
    assert _row(table, "recall", "cgn")["value"] == 0
    assert _row(table, "macro_f1")["value"] == pytest.approx(0.1)  # 2·10/(2·10+30) for one of four


def test_a_class_of_one_patient_has_a_value_but_no_interval():
    eval_set = random_softmax(n=120, n_patients=10)
    patients = np.where(eval_set.truth == 3, 99, eval_set.patients)
    table = score_table(eval_set_from(eval_set.labels, eval_set.probabilities, patients))
    row = _row(table, "recall", "cgn")
    assert not np.isnan(row["value"])
    assert np.isnan(row["low"])
    assert row["defined_share"] == pytest.approx(1 - (10 / 11) ** 11, abs=0.04)


def test_one_patient_gives_values_without_intervals():
    eval_set = random_softmax(n=40)
    table = score_table(eval_set_from(eval_set.labels, eval_set.probabilities, [1] * 40))
    assert table["value"].notna().any()
    assert table["low"].isna().all()


def test_clustering_widens_the_interval_where_images_of_a_patient_agree():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.7, 20)  # a patient is all right or all wrong
    labels = np.eye(4)[np.zeros(400, dtype=int)]
    probabilities = np.where(right[:, None], [0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0])
    by_patient = score_table(eval_set_from(labels, probabilities, np.repeat(np.arange(20), 20)))
    by_image = score_table(eval_set_from(labels, probabilities))
    width = [
        (_row(t, "accuracy")["high"] - _row(t, "accuracy")["low"]) for t in (by_patient, by_image)
    ]
    assert width[0] > 3 * width[1]


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("is_right", [True, False])
def test_no_defined_interval_is_without_width(head, is_right):
    labels = np.eye(4)[np.arange(20) % 4]
    probabilities = labels if is_right else np.roll(labels, 1, axis=1)
    table = score_table(eval_set_from(labels, probabilities, np.arange(20) // 4, head=head))
    known = table.dropna(subset=["low"])
    assert len(known)
    assert (known["high"] - known["low"] > 0.05).all()
    first = table.iloc[0]
    assert (first["low"], first["high"]) == pytest.approx((0.4, 1.0) if is_right else (0.0, 0.6))
    assert first["interval_method"] == "rule of three"
