import pytest
import torch

from glomerulab.training.losses import loss_sum, sigmoid_loss, softmax_loss

NAN = float("nan")
LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0], [0.1, 0.2, 0.3]])


def test_softmax_equals_torchs_cross_entropy() -> None:
    labels = torch.eye(3)
    for smoothing in (0.0, 0.1):
        total, n_known = softmax_loss(LOGITS, labels, label_smoothing=smoothing)
        expected = torch.nn.functional.cross_entropy(
            LOGITS, torch.arange(3), label_smoothing=smoothing
        )
        assert (total / n_known).item() == pytest.approx(expected.item())


def test_two_labels_at_once_share_the_target() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    total, _ = softmax_loss(LOGITS[:1], labels)
    expected = -LOGITS[:1].log_softmax(1)[0, :2].mean()
    assert total.item() == pytest.approx(expected.item())


def test_unknown_labels_weigh_nothing_and_get_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    labels = torch.tensor([[NAN, NAN, 0.0], [0, 1, 0], [1, NAN, 0]])
    softmax_loss(logits, labels)[0].backward()
    assert logits.grad[0].tolist() == [0.0, 0.0, 0.0]
    logits.grad = None
    total, n_known = sigmoid_loss(logits, labels)
    total.backward()
    assert n_known.item() == 6
    assert (logits.grad == 0).tolist() == labels.isnan().tolist()


def test_sigmoid_equals_torchs_binary_cross_entropy() -> None:
    labels = torch.eye(3)
    total, n_known = loss_sum(LOGITS, labels, "sigmoid")
    expected = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, labels)
    assert (total / n_known).item() == pytest.approx(expected.item())
