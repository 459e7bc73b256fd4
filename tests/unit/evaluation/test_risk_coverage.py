import numpy as np
import pytest

from glomerulab.evaluation.risk_coverage import image_confidence, image_is_right, risk_coverage
from tests.support.judged_samples import judged_from, random_softmax


def test_hand_computed_curve():
    # confidences 0.9 right, 0.8 wrong, 0.7 right
    said = [[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.7, 0.3, 0, 0]]
    curve = risk_coverage(judged_from(np.eye(4)[[0, 1, 0]], said))
    assert curve.coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_equally_certain_images_are_one_point():
    curve = risk_coverage(judged_from(np.eye(4)[[0, 1]], [[0.9, 0.1, 0, 0]] * 2))
    assert curve.coverage.tolist() == [1.0]
    assert curve.area == 0.5


def test_full_coverage_has_the_error_of_the_model():
    eval_set = random_softmax()
    assert risk_coverage(eval_set).risk[-1] == pytest.approx(
        (eval_set.truth != eval_set.decision).mean()
    )


def test_an_image_with_several_labels_is_as_certain_as_its_least_certain_known_one():
    eval_set = judged_from([[1, 0, np.nan, 0]], [[0.9, 0.3, 0.5, 0.1]], head="sigmoid")
    assert image_confidence(eval_set).tolist() == [0.7]
    assert image_is_right(eval_set).tolist() == [True]
