import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from glomerulab.training.losses import (
    known_weight,
    label_weights,
    loss_sum,
    sigmoid_loss,
    softmax_loss,
)

NAN = float("nan")
LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0], [0.1, 0.2, 0.3]])
WEIGHTS = torch.tensor([[0.5, 1.0, 2.0], [3.0, 0.25, 1.5]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_softmax_equals_torchs_cross_entropy(
    smoothing: float, weights: torch.Tensor | None
) -> None:
    labels = torch.eye(3)
    total = softmax_loss(LOGITS, labels, label_smoothing=smoothing, weights=weights)
    expected = cross_entropy(
        LOGITS,
        torch.arange(3),
        label_smoothing=smoothing,
        weight=None if weights is None else weights[1],
    )
    mean = total / known_weight(labels, "softmax", weights=weights)
    assert mean.item() == pytest.approx(expected.item())


def test_two_labels_at_once_share_the_target() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    total = softmax_loss(LOGITS[:1], labels)
    expected = -LOGITS[:1].log_softmax(1)[0, :2].mean()
    assert total.item() == pytest.approx(expected.item())


def test_unknown_labels_weigh_nothing_and_get_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    labels = torch.tensor([[NAN, NAN, 0.0], [0, 1, 0], [1, NAN, 0]])
    softmax_loss(logits, labels, label_smoothing=0.1).backward()
    assert logits.grad[0].tolist() == [0.0, 0.0, 0.0]
    assert known_weight(labels, "softmax").item() == 2
    logits.grad = None
    sigmoid_loss(logits, labels, label_smoothing=0.1).backward()
    assert known_weight(labels, "sigmoid").item() == 6
    assert (logits.grad == 0).tolist() == labels.isnan().tolist()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_sigmoid_equals_torchs_binary_cross_entropy(weights: torch.Tensor | None) -> None:
    labels = torch.eye(3)
    total = loss_sum(LOGITS, labels, "sigmoid", weights=weights)
    each = None if weights is None else torch.where(labels == 1, weights[1], weights[0])
    expected = binary_cross_entropy_with_logits(LOGITS, labels, weight=each, reduction="sum")
    assert total.item() == pytest.approx(expected.item())
    n_known = known_weight(labels, "sigmoid", weights=weights).item()
    assert n_known == pytest.approx(9.0 if each is None else each.sum().item())


def test_the_losses_of_micro_batches_sum_to_that_of_the_batch() -> None:
    labels = torch.tensor([[NAN, 1.0, 0.0], [0, 1, 0], [1, NAN, 1]])
    for head in ("softmax", "sigmoid"):
        parts = [
            loss_sum(LOGITS[at : at + 1], labels[at : at + 1], head, weights=WEIGHTS)
            for at in range(3)
        ]
        full = loss_sum(LOGITS, labels, head, weights=WEIGHTS)
        assert sum(parts).item() == pytest.approx(full.item())


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


def test_a_label_that_is_always_present_has_weight_1() -> None:
    weights = label_weights(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "sigmoid")
    assert weights[:, 0].tolist() == [1.0, 1.0]
