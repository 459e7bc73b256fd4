import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from glomerulab.evaluation.error_analysis import MIN_EMBEDDED, embed, subgroup_table, worst_errors
from tests.support.eval_sets import eval_set_from, random_softmax


def _eval_set():
    eval_set = random_softmax()
    eval_set.rows["stain"] = np.where(np.arange(eval_set.n_images) % 3 == 0, "HE", "PAS")
    eval_set.rows.loc[:4, "stain"] = None
    return eval_set


def test_groups_add_up_to_all_images():
    eval_set = _eval_set()
    table = subgroup_table(eval_set, "stain")
    assert table["n_images"].sum() == eval_set.n_images
    assert table["n_right"].sum() == eval_set.is_correct.sum()
    assert list(table["group"]) == ["PAS", "HE", "unknown"]


def test_an_interval_holds_its_share():
    table = subgroup_table(_eval_set(), "stain")
    assert (table["low"] <= table["share_right"]).all()
    assert (table["share_right"] <= table["high"]).all()


def test_one_patient_has_no_interval():
    table = subgroup_table(_eval_set(), "patient_id")
    assert table["low"].isna().all()
    assert (table["n_patients"] == 1).all()


def test_a_missing_column_is_rejected():
    with pytest.raises(ValueError, match="scanner"):
        subgroup_table(eval_set_from(np.eye(4), np.eye(4)), "scanner")


def test_shares_of_agreement_become_levels_and_text_stays():
    eval_set = eval_set_from(np.eye(4)[[0, 1, 2, 3, 0, 1]], np.eye(4)[[0, 1, 2, 3, 0, 1]])
    eval_set.rows["agreement"] = ["1", "1.0", "0.67", "0.5", "consensus", None]
    table = subgroup_table(eval_set, "agreement").set_index("group")["n_images"]
    assert table.to_dict() == {
        "all agree": 2,
        "most agree": 1,
        "half or fewer agree": 1,
        "consensus": 1,
        "unknown": 1,
    }


def test_the_most_convinced_wrong_answer_comes_first():
    probabilities = [[0.6, 0.4, 0, 0], [0.05, 0.95, 0, 0], [0.3, 0.7, 0, 0]]
    errors = worst_errors(eval_set_from(np.eye(4)[[1, 0, 1]], probabilities))
    assert [(error.image_id, error.confidence) for error in errors] == [("i1", 0.95), ("i0", 0.6)]
    assert (errors[0].true_label, errors[0].called) == ("Normal", "Mesangial proliferation")
    assert errors[0].label_id == "mspgn"  # what was called


def test_no_error_no_gallery():
    assert worst_errors(eval_set_from(np.eye(4), np.eye(4))) == []


def test_a_missed_label_counts_by_how_surely_it_was_denied():
    labels = [[0, 1, 0, 1], [0, 1, 0, np.nan]]
    probabilities = [[0.1, 0.9, 0.2, 0.02], [0.1, 0.4, 0.1, 0.99]]
    errors = worst_errors(eval_set_from(labels, probabilities, head="sigmoid"))
    assert [error.image_id for error in errors] == ["i0", "i1"]
    assert errors[0].confidence == pytest.approx(0.98)
    assert errors[0].true_label == "Mesangial proliferation + Crescent"
    assert errors[1].confidence == pytest.approx(0.6)  # the unknown label is no error
    assert [error.label_id for error in errors] == ["cgn", "mspgn"]  # what was missed


def test_at_most_n_most_errors_are_returned():
    wrong = np.roll(np.eye(4), 1, axis=1)
    assert len(worst_errors(eval_set_from(np.eye(4), wrong), n_most=3)) == 3


def test_groups_that_are_apart_stay_apart_and_a_seed_gives_the_same_places():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 20)
    features = rng.normal(size=(60, 80)) + 8.0 * np.eye(3)[groups] @ rng.normal(size=(3, 80))
    places = embed(features, seed=1)
    assert places.shape == (60, 2)
    assert KNeighborsClassifier(5).fit(places, groups).score(places, groups) == 1.0
    np.testing.assert_array_equal(places, embed(features, seed=1))


def test_few_images_or_features_are_embedded_too():
    assert embed(np.random.default_rng(0).normal(size=(MIN_EMBEDDED, 1))).shape == (MIN_EMBEDDED, 2)


def test_too_few_images_and_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=f"at least {MIN_EMBEDDED} images are needed, got 3"):
        embed(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="must be finite"):
        embed(np.full((20, 4), np.nan))
