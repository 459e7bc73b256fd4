import numpy as np
import pytest

from glomerulab.evaluation.detection import best_threshold, detection_scores, match
from glomerulab.geometry import Box


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson 1927, eq. for 95 %, written out."""
    z = 1.959963984540054
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    return middle - half, middle + half


def square(x: int, y: int = 0, side: int = 100):
    return Box(x, y, side, side).corners()


def test_the_surest_proposal_takes_the_region_and_a_second_one_is_false() -> None:
    found = match(
        [square(5), square(0), square(900)], [0.7, 0.9, 0.8], [square(0), square(400)], patient="p"
    )
    assert found.scores.tolist() == [0.9, 0.8, 0.7]
    assert found.found.tolist() == [0, -1, -1]
    assert found.n_truth == 2


def test_the_iou_rule_needs_half_and_the_centre_rule_less() -> None:
    small = square(30, 30, 40)  # inside, a sixth of the area
    assert match([small], [0.9], [square(0)], patient="p").found.tolist() == [-1]
    assert match([small], [0.9], [square(0)], patient="p", rule="centre").found.tolist() == [0]


def test_the_better_of_two_regions_is_matched() -> None:
    truth = [square(30), square(2)]
    assert match([square(0)], [0.9], truth, patient="p").found.tolist() == [1]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'dice'"):
        match([], [], [], patient="p", rule="dice")


def test_recall_and_precision_add_up_over_slides() -> None:
    matches = [
        match([square(0), square(500)], [0.9, 0.4], [square(0), square(300)], patient="a"),
        match([square(0)], [0.8], [square(0)], patient="b"),
    ]
    scores = detection_scores(matches)
    assert (scores.n_slides, scores.n_patients) == (2, 2)
    assert (scores.n_truth, scores.n_proposed, scores.n_found) == (3, 3, 2)
    assert scores.recall == scores.precision == pytest.approx(2 / 3)
    low, high = wilson(2, 3)
    assert scores.recall_interval.low == pytest.approx(low)  # patient a twice would give 0.5
    assert scores.recall_interval.high == 1.0 > high  # patient b twice
    surer = detection_scores(matches, threshold=0.5)
    assert (surer.n_proposed, surer.precision) == (2, 1.0)


def test_detecting_everything_is_not_taken_for_certainty() -> None:
    matches = [match([square(0)], [0.9], [square(0)], patient=name) for name in "abcdefgh"]
    assert detection_scores(matches).recall_interval.low == pytest.approx(1 - 3 / 8)


def test_nothing_proposed_has_no_precision_and_no_recall_of_one() -> None:
    scores = detection_scores([match([], [], [square(0)], patient="a")])
    assert scores.recall == 0.0
    assert np.isnan(scores.precision)


def test_the_threshold_is_between_the_last_true_and_the_first_false_positive() -> None:
    matches = [
        match(
            [square(0), square(300), square(600), square(900)],
            [0.9, 0.6, 0.4, 0.2],
            [square(0), square(300)],
            patient="a",
        )
    ]
    assert best_threshold(matches) == pytest.approx(0.5)
    assert best_threshold([match([], [], [square(0)], patient="a")]) == 0.5
