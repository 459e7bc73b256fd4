import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.comparison import (
    compare_areas,
    compare_models,
    delong_area,
    delong_difference,
    holm,
    mcnemar_exact,
)
from glomerulab.evaluation.intervals import RULE_OF_THREE
from tests.support.eval_sets import eval_set_from, random_sigmoid, random_softmax


def _with_accuracy(share, seed, n=200):
    """A model right on a share of the same images."""
    truth = np.arange(n) % 4
    right = np.random.default_rng(seed).random(n) < share
    called = np.where(right, truth, (truth + 1) % 4)
    return eval_set_from(np.eye(4)[truth], np.eye(4)[called], np.arange(n) // 10)


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


def test_only_images_that_both_models_predict_count():
    full = random_softmax()
    part = eval_set_from(full.labels[:50], full.probabilities[:50], full.patients[:50])
    (found,) = compare_models([("whole", full), ("part", part)])
    assert found.n_images == 50
    assert found.difference == 0
    assert found.p_mcnemar == 1


def test_models_that_disagree_about_the_truth_are_refused():
    a = eval_set_from(np.eye(4), np.eye(4))
    b = eval_set_from(np.eye(4)[[0, 1, 3, 2]], np.eye(4))
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


def _alone(eval_set, probabilities=None):
    """The same images, each of a patient of its own."""
    predicted = eval_set.probabilities if probabilities is None else probabilities
    return eval_set_from(eval_set.labels, predicted, range(eval_set.n_images), head=eval_set.head)


def _by_definition(labels, first, second):
    """Difference, its standard error and p from the kernel of every pair, DeLong 1988, eq. (5)."""
    kernels = []
    for scores in (first, second):
        gap = scores[labels == 1][:, None] - scores[labels == 0][None, :]
        kernels.append((gap > 0) + 0.5 * (gap == 0))
    kernel = kernels[0] - kernels[1]
    v10, v01 = kernel.mean(axis=1), kernel.mean(axis=0)
    error = np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))
    return kernel.mean(), error, 2 * norm.sf(abs(kernel.mean() / error))


@pytest.mark.parametrize("sample", [random_softmax, random_sigmoid])
def test_each_label_has_the_difference_and_p_of_the_definition(sample):
    eval_set = sample(n=150)
    noise = np.random.default_rng(3).dirichlet(np.ones(4), size=eval_set.n_images)
    worse = 0.7 * eval_set.probabilities + 0.3 * noise
    found = compare_areas([("a", _alone(eval_set)), ("b", _alone(eval_set, worse))])
    assert [one.label for one in found] == list(eval_set.taxonomy.label_ids)
    for k, one in enumerate(found):
        known = ~np.isnan(eval_set.labels[:, k])
        difference, error, p = _by_definition(
            eval_set.labels[known, k], eval_set.probabilities[known, k], worse[known, k]
        )
        assert one.difference == pytest.approx(difference)
        assert one.high - one.difference == pytest.approx(1.959964 * error)
        assert one.p_delong == pytest.approx(p)
        assert one.n_images == known.sum()
    least = min(found, key=lambda one: one.p_delong)
    assert least.p_holm == pytest.approx(min(1.0, len(found) * least.p_delong))


def test_patients_with_several_images_or_unknown_are_not_compared():
    eval_set = random_softmax()
    assert compare_areas([("a", eval_set), ("b", eval_set)]) == []
    unknown = eval_set_from(eval_set.labels, eval_set.probabilities, [None] * eval_set.n_images)
    assert compare_areas([("a", unknown), ("b", unknown)]) == []


def test_a_label_that_one_image_shows_is_left_out():
    labels = np.eye(4)[[0] * 5 + [1] * 5 + [2]]
    eval_set = eval_set_from(labels, np.full((11, 4), 0.25), range(11))
    found = compare_areas([("a", eval_set), ("b", eval_set)])
    assert [one.label for one in found] == ["normal", "mspgn"]
    assert [one.p_holm for one in found] == [1.0, 1.0]


def test_models_that_disagree_on_the_truth_are_refused():
    predicted = np.full((2, 4), 0.25)
    here, there = (eval_set_from(np.eye(4)[truth], predicted, "ab") for truth in ([0, 1], [1, 0]))
    with pytest.raises(PredictionsError, match="different labels for image 'i0'"):
        compare_areas([("a", here), ("b", there)])


LABELS = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
SCORES = np.array([0.1, 0.4, 0.6, 0.5, 0.8, 0.9])


def test_a_model_against_itself_does_not_differ():
    found = delong_difference(LABELS, SCORES, SCORES)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_swapping_the_models_turns_the_sign():
    other = SCORES[::-1]
    there, back = (delong_difference(LABELS, *pair) for pair in ((SCORES, other), (other, SCORES)))
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)


def test_a_perfect_order_has_no_error_and_an_interval_with_width():
    area = delong_area(LABELS, LABELS)
    assert (area.auc, area.standard_error, area.high) == (1.0, 0.0, 1.0)
    assert area.low < 1.0
    assert area.interval_method == RULE_OF_THREE


def test_models_that_are_always_right_may_still_differ():
    labels = np.eye(4)[np.arange(12) % 4]
    both = [(name, eval_set_from(labels, labels)) for name in ("one", "other")]
    (pair,) = compare_models(both)
    assert (pair.low, pair.high) == pytest.approx((-0.25, 0.25))
    assert pair.interval_method == RULE_OF_THREE
    assert all(area.low < area.difference < area.high for area in compare_areas(both))


def test_the_interval_stays_within_zero_and_one():
    area = delong_area(LABELS, SCORES)
    assert 0.0 <= area.low < area.auc < area.high <= 1.0


def test_a_single_positive_is_refused():
    with pytest.raises(ValueError, match="1 positive and 3 negative"):
        delong_area(np.array([0.0, 0.0, 0.0, 1.0]), SCORES[:4])
