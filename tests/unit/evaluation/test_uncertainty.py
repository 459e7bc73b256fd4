import numpy as np
import pytest

from glomerulab.evaluation.uncertainty import (
    conformal_result,
    conformal_sets,
    conformal_threshold,
    image_confidence,
    risk_coverage,
)
from tests.support.eval_sets import eval_set_from, random_sigmoid, random_softmax


def test_hand_computed_threshold():
    # p(truth) 0.1 .. 0.9: strangeness 0.9 .. 0.1; ceil(10 · 0.8) = 8th smallest is 0.8
    predicted = np.array([[p, 1 - p, 0, 0] for p in np.arange(1, 10) / 10])
    eval_set = eval_set_from(np.eye(4)[[0] * 9], predicted)
    assert conformal_threshold(eval_set, coverage=0.8) == pytest.approx(0.2)


def test_too_small_a_validation_part_promises_by_answering_everything():
    eval_set = eval_set_from(np.eye(4)[[0, 0]], [[0.9, 0.1, 0, 0]] * 2)
    assert conformal_threshold(eval_set, coverage=0.9) == 0.0
    assert conformal_sets(eval_set, 0.0).all()


@pytest.mark.parametrize("sample", [random_softmax, random_sigmoid])
@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_the_label_set_covers_the_truth_at_the_stated_rate(sample, coverage):
    found = [
        conformal_result(sample(seed=k, n=400), sample(seed=100 + k, n=400), coverage=coverage)
        for k in range(20)
    ]
    mean = np.mean([one.coverage for one in found])
    assert mean == pytest.approx(coverage, abs=0.02)
    assert all(0 <= one.share_single <= 1 for one in found)


def test_more_coverage_needs_larger_sets():
    validation, eval_set = random_softmax(seed=1), random_softmax(seed=2)
    sizes = [conformal_result(validation, eval_set, coverage=c).mean_size for c in (0.6, 0.8, 0.95)]
    assert sizes == sorted(sizes)


def test_sets_of_labels_hold_absent_or_present():
    eval_set = random_sigmoid()
    sets = conformal_sets(eval_set, 0.4)
    assert sets.shape == (int((~np.isnan(eval_set.labels)).sum()), 2)


def test_an_impossible_coverage_is_refused():
    with pytest.raises(ValueError, match="got 1"):
        conformal_threshold(random_softmax(), coverage=1)


def _alike_within_patients(rng, n_patients, n_images=8):
    """Images of a patient share nearly all of how sure the model is of the truth."""
    shared = np.repeat(rng.normal(size=n_patients), n_images)
    surely = 1.5 + 1.5 * (0.95 * shared + 0.31 * rng.normal(size=len(shared)))
    of_truth = 1 / (1 + np.exp(-surely))
    predicted = np.tile(((1 - of_truth) / 3)[:, None], 4)
    predicted[:, 0] = of_truth
    patients = np.repeat(np.arange(n_patients), n_images)
    return eval_set_from(np.eye(4)[np.zeros(len(predicted), dtype=int)], predicted, patients)


def test_few_patients_with_similar_images_lower_the_coverage_as_documented():
    rng = np.random.default_rng(0)
    found = [
        conformal_result(
            _alike_within_patients(rng, 5), _alike_within_patients(rng, 40), coverage=0.95
        )
        for _ in range(60)
    ]
    assert np.mean([one.coverage for one in found]) < 0.93
    assert (found[0].n_fitted, found[0].n_patients_fitted) == (40, 5)


def test_hand_computed_curve():
    # confidences 0.9 right, 0.8 wrong, 0.7 right
    predicted = [[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.7, 0.3, 0, 0]]
    curve = risk_coverage(eval_set_from(np.eye(4)[[0, 1, 0]], predicted))
    assert curve.coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_equally_certain_images_are_one_point():
    curve = risk_coverage(eval_set_from(np.eye(4)[[0, 1]], [[0.9, 0.1, 0, 0]] * 2))
    assert curve.coverage.tolist() == [1.0]
    assert curve.area == 0.5


def test_full_coverage_has_the_error_of_the_model():
    eval_set = random_softmax()
    assert risk_coverage(eval_set).risk[-1] == pytest.approx(
        (eval_set.truth != eval_set.decision).mean()
    )


def test_an_image_with_several_labels_is_as_certain_as_its_least_certain_known_one():
    eval_set = eval_set_from([[1, 0, np.nan, 0]], [[0.9, 0.3, 0.5, 0.1]], head="sigmoid")
    assert image_confidence(eval_set).tolist() == [0.7]
    assert eval_set.is_correct.tolist() == [True]
