"""The loss sees known pixels only."""

import math

import torch

from glomerulab.training.segmentation.losses import segmentation_loss


def test_unknown_pixels_have_no_weight() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    targets = torch.randint(0, 2, (2, 3, 8, 8), dtype=torch.uint8)
    targets[:, 1] = 2
    targets[:, :, 4:] = 2
    loss = segmentation_loss(logits, targets)
    loss.backward()
    gradient = logits.grad
    assert gradient is not None
    assert (gradient[targets == 2] == 0).all()
    assert (gradient[targets != 2] != 0).all()
    other = logits.detach().clone()
    other[targets == 2] = 50.0
    assert segmentation_loss(other, targets) == loss.detach()


def test_the_loss_is_cross_entropy_and_dice_of_the_batch() -> None:
    logits = torch.tensor([[[[2.0, -1.0]]], [[[0.0, 3.0]]]])
    targets = torch.tensor([[[[1, 0]]], [[[2, 1]]]], dtype=torch.uint8)
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 3.0)]
    entropy = -(math.log(p[0]) + math.log(1 - p[1]) + math.log(p[2])) / 3
    dice = (2 * (p[0] + p[2]) + 1) / (sum(p) + 2 + 1)
    expected = entropy + 1 - dice
    assert math.isclose(float(segmentation_loss(logits, targets)), expected, rel_tol=1e-5)


def test_patches_of_which_nothing_is_known_cost_nothing() -> None:
    logits = torch.randn(1, 2, 4, 4)
    assert segmentation_loss(logits, torch.full((1, 2, 4, 4), 2, dtype=torch.uint8)) == 0
    absent = segmentation_loss(logits * 0 - 20, torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
    assert absent < 1e-6


def by_operations_of_torch(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    known, truth = (targets != 2).to(logits), (targets == 1).to(logits)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (each * known).sum((0, 2, 3)) / known.sum((0, 2, 3)).clamp(min=1)
    both = (logits.sigmoid() * truth).sum((0, 2, 3))
    total = ((logits.sigmoid() + truth) * known).sum((0, 2, 3))
    dice = torch.where(truth.sum((0, 2, 3)) > 0, 1 - (2 * both + 1) / (total + 1), 0.0)
    is_used = known.sum((0, 2, 3)) > 0
    return ((entropy + dice) * is_used).sum() / is_used.sum().clamp(min=1)


def test_loss_and_derivative_are_those_of_torch() -> None:
    torch.manual_seed(1)
    targets = torch.randint(0, 3, (3, 5, 16, 16), dtype=torch.uint8)
    targets[:, 1], targets[:, 2] = 2, 0
    logits = (4 * torch.randn(3, 5, 16, 16)).requires_grad_()
    wide = logits.detach().double().requires_grad_()
    loss, expected = segmentation_loss(logits, targets), by_operations_of_torch(wide, targets)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert logits.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=1e-4, atol=1e-9)
