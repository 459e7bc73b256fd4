"""The improved network from a ResNet-34: the stem as it is, each 3×3 kernel as its best pair.

ResNet-34 has the improved network's layout: 3, 4, 6, 3 blocks of two 3×3 convolutions, where each
improved module has two pairs of 1×3 and 3×1. It must not know where the weights come from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glomerulab.models.networks.improved_seresnet import ImprovedModule, ImprovedSeResNet
from glomerulab.models.transfer.resnet_norms import (
    carry_stem,
    measure,
    scale_and_offset,
    set_identity,
)

__all__ = [
    "PairEnergy",
    "SeparablePair",
    "is_basic_resnet",
    "separable_pair",
    "transfer_basic_resnet",
]

Weights = Mapping[str, Tensor]

OPEN_BY = 2.0
"""Standard deviations by which a ReLU inside a pair is opened, so that it passes nearly all."""


@dataclass(frozen=True, slots=True)
class SeparablePair:
    """A 1×3 and a 3×1 convolution that stand for one 3×3."""

    row: Tensor
    """Shape (rank, I, 1, 3)."""
    column: Tensor
    """Shape (O, rank, 3, 1)."""
    energy: float
    """Share of the squared 3×3 weights that the pair keeps, 0 to 1."""


@dataclass(frozen=True, slots=True)
class PairEnergy:
    """How much of one 3×3 kernel a pair keeps."""

    layer: str
    """Name of the 3×3 convolution."""
    energy: float
    """0 to 1."""


def separable_pair(kernel: Tensor, rank: int) -> SeparablePair:
    r"""Approximate a 3×3 convolution by a 1×3 and then a 3×1 one.

    Parameters
    ----------
    kernel : Tensor of float, shape (O, I, 3, 3)
    rank : int
        Channels between the two.

    Returns
    -------
    SeparablePair
        In single precision. Where the kernel has a lower rank, the channels left over are zero.

    Raises
    ------
    ValueError
        If the kernel is not 3×3 or the rank is not positive.

    Notes
    -----
    "Scheme 2" of [1]_: :math:`K_{oiyx} \approx \sum_m c_{omy} r_{mix}`. Written as a matrix with
    rows (i, x) and columns (o, y), its truncated singular value decomposition has the least squared
    error of all pairs of that rank (Eckart and Young); each half takes the root of the values.

    References
    ----------
    .. [1] Jaderberg, Vedaldi and Zisserman, Speeding up convolutional neural networks with low
       rank expansions, BMVC 2014.
    """
    if kernel.ndim != 4 or kernel.shape[2:] != (3, 3):
        raise ValueError(f"kernel must have shape (O, I, 3, 3), got {tuple(kernel.shape)}")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    n_out, n_in = kernel.shape[:2]
    matrix = kernel.double().permute(1, 3, 0, 2).reshape(n_in * 3, n_out * 3)  # (ix, oy)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    row = torch.zeros(rank, n_in, 1, 3)
    column = torch.zeros(n_out, rank, 3, 1)
    row[:kept, :, 0] = (left[:, :kept] * root).T.reshape(kept, n_in, 3).float()
    column[:, :kept, :, 0] = (
        (root[:, None] * right[:kept]).reshape(kept, n_out, 3).permute(1, 0, 2).float()
    )
    total = float(values.square().sum())
    energy = float(values[:kept].square().sum()) / total if total > 0 else 1.0
    return SeparablePair(row, column, energy)


def is_basic_resnet(weights: Weights, model: ImprovedSeResNet) -> bool:
    """Say whether weights are of a ResNet of basic blocks with the layout of an improved network.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Names as torchvision and timm give them.
    model : ImprovedSeResNet

    Returns
    -------
    bool
        False too for a network whose modules widen (reading ``wide``): its last 3×1 is wider than
        any 3×3 of a basic block.
    """
    stem = weights.get("conv1.weight")
    if stem is None or stem.shape != model.stem.state_dict()["0.weight"].shape:
        return False
    for stage, block, module in _places(model):
        kernels = [weights.get(f"{block}.conv{place}.weight") for place in (1, 2)]
        if any(kernel is None or kernel.shape[2:] != (3, 3) for kernel in kernels):
            return False
        widths = [0 if kernel is None else kernel.shape[0] for kernel in kernels]
        if widths != [module.conv2.out_channels, module.conv4.out_channels]:
            return False
        if f"layer{stage + 1}.{len(_modules(model, stage))}.conv1.weight" in weights:
            return False
    return True


@torch.no_grad()
def transfer_basic_resnet(
    model: ImprovedSeResNet, weights: Weights, images: Tensor
) -> tuple[PairEnergy, ...]:
    """Start an improved network from a ResNet of basic blocks, such as ResNet-34.

    Parameters
    ----------
    model : ImprovedSeResNet
        Of the reading ``paper`` or ``cited``; changed in place, all but its classifier.
    weights : mapping of str to Tensor
        For which `is_basic_resnet` holds.
    images : Tensor of float, shape (B, 3, H, W)
        Training images, normalised as in training: batch norms are measured on them.

    Returns
    -------
    tuple of PairEnergy
        One per 3×3 convolution, in order.

    Notes
    -----
    Ours, not the paper's; what else is needed so that the start computes what ResNet-34 does:

    - The improved network has its batch norms before the convolutions. The scale of a ResNet's norm
      goes into the convolution before it, its offset into the next norm; the norms of the residual
      stream are set to the identity plus that offset, on the statistics of `images`.
    - Squeeze-and-excitation starts at one half for every channel, so the last 3×1 is doubled.
    - A stage's widening (reading ``paper``) passes its input on in its first channels; the others
      are random, and nothing reads them yet.
    - A ReLU inside a pair is opened by two standard deviations, and the offset taken out again.

    What differs: a ResNet keeps the sum after its ReLU, the improved network before it; and what a
    pair of that rank cannot hold, see the energies.
    """
    was_training = model.training
    model.eval()
    walk = _Walk(dict(weights))
    maps, offset = walk.stem(model, images)
    n_same = maps.shape[1]  # channels that are the ResNet's; the first ones
    for stage in range(len(model.stages)):
        for at, module in enumerate(_modules(model, stage)):
            block = f"layer{stage + 1}.{at}"
            maps, offset = walk.module(module, block, maps, offset, n_same=n_same)
            n_same = maps.shape[1]
        maps, offset = _pass_on(list(model.stages[stage].children()), maps, offset)
    set_identity(model.norm, maps, offset)
    model.train(was_training)
    return tuple(walk.energies)


class _Walk:
    """The images as they pass the network while its layers are set, first to last."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        self.energies: list[PairEnergy] = []

    def stem(self, model: ImprovedSeResNet, images: Tensor) -> tuple[Tensor, Tensor]:
        offset = carry_stem(model.stem, self.weights)
        maps: Tensor = model.stem(images)
        return maps, offset

    def module(
        self, module: ImprovedModule, block: str, maps: Tensor, offset: Tensor, *, n_same: int
    ) -> tuple[Tensor, Tensor]:
        """Set one module; return its output, and what is to be added to it."""
        set_identity(module.norm1, maps, offset)
        active = module.norm1(maps).relu()
        if module.shortcut is None:
            kept, offset = maps, offset.clone()
        else:
            offset = self._set_shortcut(module.shortcut, f"{block}.downsample", n_same)
            kept = module.shortcut(active)
        self._set_pair(module.conv1, module.conv2, f"{block}.conv1", n_same)
        inner, _ = _through_pair(active, module.conv1, module.norm2, module.conv2)
        _set_norm(module.norm3, inner, self.weights, f"{block}.bn1")
        inner = module.norm3(inner).relu()
        scale, own_offset = scale_and_offset(self.weights, f"{block}.bn2")
        self._set_pair(module.conv3, module.conv4, f"{block}.conv2", module.conv3.in_channels)
        module.conv4.weight.mul_(2.0 * scale[:, None, None, None])
        module.attention.excite.weight.zero_()  # sigmoid(0) is one half
        inner, opened = _through_pair(inner, module.conv3, module.norm4, module.conv4)
        return kept + module.attention(inner), offset + own_offset - 0.5 * opened

    def _set_pair(self, row: nn.Conv2d, column: nn.Conv2d, layer: str, n_same: int) -> None:
        pair = separable_pair(self.weights[f"{layer}.weight"], row.out_channels)
        row.weight.zero_()
        row.weight[:, :n_same].copy_(pair.row)
        column.weight.copy_(pair.column)
        self.energies.append(PairEnergy(layer, pair.energy))

    def _set_shortcut(self, shortcut: nn.Conv2d, layer: str, n_same: int) -> Tensor:
        scale, offset = scale_and_offset(self.weights, f"{layer}.1")
        shortcut.weight.zero_()
        kernel = self.weights[f"{layer}.0.weight"] * scale[:, None, None, None]
        shortcut.weight[:, :n_same].copy_(kernel)
        return offset


def _through_pair(
    maps: Tensor, row: nn.Conv2d, norm: nn.BatchNorm2d | None, column: nn.Conv2d
) -> tuple[Tensor, Tensor]:
    """Return the output of a pair, and what opening its ReLU added to it, shape (C,)."""
    inner = row(maps)
    if norm is None:
        return column(inner), torch.zeros(column.out_channels)
    spread = inner.std(dim=(0, 2, 3))
    set_identity(norm, inner, OPEN_BY * spread)
    added = column.weight.sum(dim=(2, 3)) @ (OPEN_BY * spread)  # of pixels away from the border
    return column(norm(inner).relu()), added


def _pass_on(stage: list[nn.Module], maps: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Set what widens a stage, if anything does, to give its input in the first channels."""
    ends = [layer for layer in stage if not isinstance(layer, ImprovedModule)]
    if not ends:
        return maps, offset
    norm, relu, widen = ends
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(widen, nn.Conv2d)
    set_identity(norm, maps, offset)
    widen.weight[: maps.shape[1]] = torch.eye(maps.shape[1])[:, :, None, None]
    wide: Tensor = widen(relu(norm(maps)))
    return wide, torch.zeros(wide.shape[1])


def _set_norm(norm: nn.BatchNorm2d, maps: Tensor, weights: Weights, source: str) -> None:
    """Take what a norm has learned, and measure anew what reaches it."""
    measure(norm, maps)
    norm.weight.copy_(weights[f"{source}.weight"])
    norm.bias.copy_(weights[f"{source}.bias"])


def _modules(model: ImprovedSeResNet, stage: int) -> list[ImprovedModule]:
    layers = model.stages[stage]
    assert isinstance(layers, nn.Sequential)
    return [layer for layer in layers if isinstance(layer, ImprovedModule)]


def _places(model: ImprovedSeResNet) -> Iterator[tuple[int, str, ImprovedModule]]:
    """Name the block of a ResNet that stands where each module does."""
    for stage in range(len(model.stages)):
        for at, module in enumerate(_modules(model, stage)):
            yield stage, f"layer{stage + 1}.{at}", module
