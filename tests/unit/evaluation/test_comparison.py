import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.comparison import compare_models, holm, mcnemar_exact
from tests.support.judged_samples import judged_from, random_softmax


def _with_accuracy(share, seed, n=200):
    """A model right on a share of the same images."""
    truth = np.arange(n) % 4
    right = np.random.default_rng(seed).random(n) < share
    called = np.where(right, truth, (truth + 1) % 4)
    return judged_from(np.eye(4)[truth], np.eye(4)[called], np.arange(n) // 10)


def test_a_better_model_is_better_beyond_chance():
    (found,) = compare_models([("good", _with_accuracy(0.9, 1)), ("bad", _with_accuracy(0.5, 2))])
    assert (found.first, found.second) == ("good", "bad")
    assert found.low > 0.2
    assert found.p_mcnemar < 1e-6
    assert found.n_patients == 20


def test_counts_and_difference_agree():
    a, b = _with_accuracy(0.8, 1), _with_accuracy(0.7, 2)
    (found,) = compare_models([("a", a), ("b", b)])
    gained = found.only_first_right - found.only_second_right
    assert found.difference == pytest.approx(gained / found.n_images)
    assert found.low <= found.difference <= found.high


def test_three_models_make_three_pairs_with_corrected_p():
    models = [
        (name, _with_accuracy(share, k))
        for k, (name, share) in enumerate([("a", 0.9), ("b", 0.7), ("c", 0.6)])
    ]
    found = compare_models(models)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [one.p_holm for one in found] == holm([one.p_mcnemar for one in found])


def test_only_images_that_both_judged_count():
    whole = random_softmax()
    part = judged_from(whole.labels[:50], whole.probabilities[:50], whole.patients[:50])
    (found,) = compare_models([("whole", whole), ("part", part)])
    assert found.n_images == 50
    assert found.difference == 0
    assert found.p_mcnemar == 1


def test_models_that_disagree_about_the_truth_are_refused():
    a = judged_from(np.eye(4), np.eye(4))
    b = judged_from(np.eye(4)[[0, 1, 3, 2]], np.eye(4))
    with pytest.raises(PredictionsError, match="different labels for image 'i2'"):
        compare_models([("a", a), ("b", b)])


def test_one_model_is_no_comparison():
    with pytest.raises(ValueError, match="got 1"):
        compare_models([("a", random_softmax())])


def test_models_that_never_differ_have_p_one():
    assert mcnemar_exact(0, 0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_correction_never_makes_a_p_value_smaller(p_values):
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert max(corrected) <= 1
    by_size = [corrected[k] for k in np.argsort(p_values, kind="stable")]
    assert by_size == sorted(by_size)
