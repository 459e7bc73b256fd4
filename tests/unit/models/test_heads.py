import pytest
import torch

from glomerulab.models.heads import is_correct, probabilities

NAN = float("nan")


def test_softmax_sums_to_one_and_sigmoid_is_per_label() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    assert probabilities(logits, "softmax").sum().item() == pytest.approx(1.0, abs=1e-12)
    assert probabilities(logits, "sigmoid")[0, 0].item() == 0.5


def test_softmax_is_correct_if_its_class_is_present() -> None:
    logits = torch.tensor([[3.0, 0, 0], [3, 0, 0], [3, 0, 0]])
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 0], [NAN, 0, 0]])
    right, known = is_correct(logits, labels, "softmax")
    assert right.tolist() == [True, False, False]
    assert known.tolist() == [True, True, False]


def test_sigmoid_is_correct_if_every_known_label_is() -> None:
    logits = torch.tensor([[3.0, -1], [3, -1], [3, 1]])
    labels = torch.tensor([[1.0, NAN], [NAN, NAN], [1, 0]])
    right, known = is_correct(logits, labels, "sigmoid")
    assert right.tolist() == [True, True, False]
    assert known.tolist() == [True, False, True]


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head must be one of"):
        probabilities(torch.zeros(1, 2), "linear")
    with pytest.raises(ValueError, match="head must be one of"):
        is_correct(torch.zeros(1, 2), torch.zeros(1, 2), "linear")
