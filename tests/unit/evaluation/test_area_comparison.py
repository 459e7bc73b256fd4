import numpy as np
import pytest
from scipy.stats import norm

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.area_comparison import compare_areas
from tests.support.judged_samples import judged_from, random_sigmoid, random_softmax


def _alone(eval_set, probabilities=None):
    """The same images, each of a patient of its own."""
    said = eval_set.probabilities if probabilities is None else probabilities
    return judged_from(eval_set.labels, said, range(eval_set.n_images), head=eval_set.head)


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
    unknown = judged_from(eval_set.labels, eval_set.probabilities, [None] * eval_set.n_images)
    assert compare_areas([("a", unknown), ("b", unknown)]) == []


def test_a_label_that_one_image_shows_is_left_out():
    labels = np.eye(4)[[0] * 5 + [1] * 5 + [2]]
    eval_set = judged_from(labels, np.full((11, 4), 0.25), range(11))
    found = compare_areas([("a", eval_set), ("b", eval_set)])
    assert [one.label for one in found] == ["normal", "mspgn"]
    assert [one.p_holm for one in found] == [1.0, 1.0]


def test_models_that_disagree_on_the_truth_are_refused():
    said = np.full((2, 4), 0.25)
    here, there = (judged_from(np.eye(4)[truth], said, "ab") for truth in ([0, 1], [1, 0]))
    with pytest.raises(PredictionsError, match="different labels for image 'i0'"):
        compare_areas([("a", here), ("b", there)])
