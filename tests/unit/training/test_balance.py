import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from glomerulab.training.balance import balanced_draw, label_weights

NAN = float("nan")


def test_class_weights_are_those_that_scikit_learn_calls_balanced() -> None:
    classes = np.array([0] * 12 + [1] * 3 + [2] * 5)
    weights = label_weights(torch.eye(3)[classes], "softmax")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    assert np.allclose(weights[1].numpy(), expected)


def test_under_sigmoid_both_sides_of_each_label_weigh_the_same() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [0, NAN], [0, 1]])
    absent, present = label_weights(labels, "sigmoid")
    assert (3 * absent[0]).item() == present[0].item() == 2.0
    assert (2 * absent[1]).item() == present[1].item() == 1.5


def test_a_label_that_nobody_lacks_keeps_its_weight() -> None:
    weights = label_weights(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "sigmoid")
    assert weights[:, 0].tolist() == [1.0, 1.0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 2**31))
def test_the_classes_are_drawn_equally_often(classes: list[int], seed: int) -> None:
    labels = np.eye(4)[classes]
    drawn = balanced_draw(labels, np.random.default_rng(seed))
    assert len(drawn) == len(classes)
    counts = np.bincount(np.asarray(classes)[drawn], minlength=4)
    there = np.unique(classes)
    assert counts.sum() == counts[there].sum()
    times = np.bincount(drawn, minlength=len(classes))
    for one in there:
        of_class = times[np.asarray(classes) == one]
        expected = len(classes) / len(there) / len(of_class)
        assert np.abs(of_class - expected).max() < 1 + 1e-9


def test_an_image_with_two_labels_is_drawn_for_the_rarer_and_one_without_any_too() -> None:
    labels = np.array([[1, 0]] * 8 + [[1, 1]] * 2 + [[0, 0]] * 2 + [[NAN, NAN]] * 2)
    drawn = balanced_draw(labels, np.random.default_rng(0))
    times = np.bincount(drawn, minlength=len(labels))
    # Shares: 8 times 1/10 of the first label, 2 times 1/2 of the second, 4 times 1/4 of none.
    expected = np.array([0.1] * 8 + [0.5] * 2 + [0.25] * 4) / 2.8 * 14
    assert np.abs(times - expected).max() < 1
