"""Initialise the improved network from a ResNet-34: each 3×3 kernel as its best separable pair.

ResNet-34 has the layout of the improved network: 3, 4, 6, 3 blocks of two 3×3 convolutions, where
each improved module has two pairs of 1×3 and 3×1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glomerulab.models.networks.improved_seresnet import ImprovedModule, ImprovedSeResNet

__all__ = ["PairEnergy", "is_basic_resnet", "transfer_basic_resnet"]

Weights = Mapping[str, Tensor]

NORM_EPS = 1e-5
"""Of the batch norms of timm's and torchvision's ResNets."""
OPEN_BY = 2.0
"""Standard deviations by which a ReLU inside a pair is opened, so that it passes nearly all."""


@dataclass(frozen=True, slots=True)
class SeparablePair:
    """A 1×3 and a 3×1 convolution in place of a 3×3 one."""

    row: Tensor
    """Shape (rank, I, 1, 3)."""
    column: Tensor
    """Shape (O, rank, 3, 1)."""
    energy: float
    """Share of the squared 3×3 weights that the pair keeps, 0 to 1."""


@dataclass(frozen=True, slots=True)
class PairEnergy:
    """The share of one 3×3 kernel that its pair keeps."""

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
        In single precision. If the kernel has a lower rank, the remaining channels are zero.

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
    """Return whether weights are of a ResNet of basic blocks with the layout of `model`.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Names as in torchvision and timm.
    model : ImprovedSeResNet
        False for the reading ``wide``, whose last 3×1 is wider than any 3×3 of a basic block.
    """
    stem = weights.get("conv1.weight")
    if stem is None or stem.shape != model.stem.state_dict()["0.weight"].shape:
        return False
    for stage, block, module in _blocks(model):
        kernels = [weights.get(f"{block}.conv{number}.weight") for number in (1, 2)]
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
    """Initialise an improved network from a ResNet of basic blocks, such as ResNet-34.

    Parameters
    ----------
    model : ImprovedSeResNet
        Of the reading ``paper`` or ``cited``; changed in place, all but its classifier.
    weights : mapping of str to Tensor
        Weights for which `is_basic_resnet` holds.
    images : Tensor of float, shape (B, 3, H, W)
        Normalised training images, on which batch norms are measured.

    Returns
    -------
    tuple of PairEnergy
        One per 3×3 convolution, in order.

    Notes
    -----
    Ours, not the paper's. So that the network starts by computing what ResNet-34 does:

    - The improved network has its batch norms before the convolutions. The scale of a ResNet's norm
      goes into the convolution before it, its offset into the next norm; the norms of the residual
      stream are set to the identity plus that offset, on the statistics of `images`.
    - Squeeze-and-excitation starts at one half for every channel, so the last 3×1 is doubled.
    - A stage's widening (reading ``paper``) copies its input to its first channels; the others
      are random, and nothing reads them yet.
    - A ReLU inside a pair is opened by two standard deviations, and the offset subtracted again.

    What differs: a ResNet keeps the sum after its ReLU, the improved network before it; and what a
    pair of that rank cannot hold, see the energies.
    """
    was_training = model.training
    model.eval()
    transfer = _Transfer(dict(weights))
    offset = copy_stem(model.stem, weights)
    maps: Tensor = model.stem(images)
    n_resnet = maps.shape[1]  # the first channels are those of the ResNet
    for stage in range(len(model.stages)):
        for index, module in enumerate(_modules(model, stage)):
            block = f"layer{stage + 1}.{index}"
            maps, offset = transfer.module(module, block, maps, offset, n_resnet=n_resnet)
            n_resnet = maps.shape[1]
        maps, offset = _set_widening(list(model.stages[stage].children()), maps, offset)
    set_identity(model.norm, maps, offset)
    model.train(was_training)
    return tuple(transfer.energies)


class _Transfer:
    """Sets the modules of a network one after the other, passing the images through each."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        self.energies: list[PairEnergy] = []

    def module(
        self, module: ImprovedModule, block: str, maps: Tensor, offset: Tensor, *, n_resnet: int
    ) -> tuple[Tensor, Tensor]:
        """Set one module; return its output, and the offset that is still to be added to it."""
        set_identity(module.norm1, maps, offset)
        active = module.norm1(maps).relu()
        if module.shortcut is None:
            kept, offset = maps, offset.clone()
        else:
            offset = self._set_shortcut(module.shortcut, f"{block}.downsample", n_resnet)
            kept = module.shortcut(active)
        self._set_pair(module.conv1, module.conv2, f"{block}.conv1", n_resnet)
        inner, _ = _through_pair(active, module.conv1, module.norm2, module.conv2)
        _set_norm(module.norm3, inner, self.weights, f"{block}.bn1")
        inner = module.norm3(inner).relu()
        scale, own_offset = scale_and_offset(self.weights, f"{block}.bn2")
        self._set_pair(module.conv3, module.conv4, f"{block}.conv2", module.conv3.in_channels)
        module.conv4.weight.mul_(2.0 * scale[:, None, None, None])
        module.attention.excite.weight.zero_()  # sigmoid(0) is one half
        inner, opened = _through_pair(inner, module.conv3, module.norm4, module.conv4)
        return kept + module.attention(inner), offset + own_offset - 0.5 * opened

    def _set_pair(self, row: nn.Conv2d, column: nn.Conv2d, layer: str, n_resnet: int) -> None:
        pair = separable_pair(self.weights[f"{layer}.weight"], row.out_channels)
        row.weight.zero_()
        row.weight[:, :n_resnet].copy_(pair.row)
        column.weight.copy_(pair.column)
        self.energies.append(PairEnergy(layer, pair.energy))

    def _set_shortcut(self, shortcut: nn.Conv2d, layer: str, n_resnet: int) -> Tensor:
        scale, offset = scale_and_offset(self.weights, f"{layer}.1")
        shortcut.weight.zero_()
        kernel = self.weights[f"{layer}.0.weight"] * scale[:, None, None, None]
        shortcut.weight[:, :n_resnet].copy_(kernel)
        return offset


def scale_and_offset(weights: Weights, norm: str) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand of a batch norm in evaluation mode, each of shape (C,)."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPS).sqrt()
    return scale, weights[f"{norm}.bias"] - scale * weights[f"{norm}.running_mean"]


@torch.no_grad()
def copy_stem(stem: nn.Sequential, weights: Weights) -> Tensor:
    """Copy the stem of a ResNet to a stem without a norm; return the norm's offset, shape (C,).

    The scale of the norm goes into the convolution. Pooling keeps the order of values, so it may
    come before the offset and the ReLU.
    """
    scale, offset = scale_and_offset(weights, "bn1")
    kernel = weights["conv1.weight"] * scale[:, None, None, None]
    stem.load_state_dict({"0.weight": kernel}, strict=False)
    return offset


@torch.no_grad()
def set_identity(norm: nn.BatchNorm2d, maps: Tensor, offset: Tensor) -> None:
    """Make a batch norm add an offset, shape (C,), and nothing else, on the statistics of maps."""
    mean, variance = _measure(norm, maps)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + offset)


def _measure(norm: nn.BatchNorm2d, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Set the running statistics of a batch norm to those of maps, and return them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(maps.mean(dim=(0, 2, 3)))
    norm.running_var.copy_(maps.var(dim=(0, 2, 3)))
    return norm.running_mean, norm.running_var


def _set_norm(norm: nn.BatchNorm2d, maps: Tensor, weights: Weights, source: str) -> None:
    """Copy the scale and bias of a norm, and measure its statistics anew."""
    _measure(norm, maps)
    norm.weight.copy_(weights[f"{source}.weight"])
    norm.bias.copy_(weights[f"{source}.bias"])


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


def _set_widening(stage: list[nn.Module], maps: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Make the widening at the end of a stage, if there is one, copy its input."""
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


def _modules(model: ImprovedSeResNet, stage: int) -> list[ImprovedModule]:
    layers = model.stages[stage]
    assert isinstance(layers, nn.Sequential)
    return [layer for layer in layers if isinstance(layer, ImprovedModule)]


def _blocks(model: ImprovedSeResNet) -> Iterator[tuple[int, str, ImprovedModule]]:
    """Yield the stage of each module, and the name of the corresponding block of a ResNet."""
    for stage in range(len(model.stages)):
        for index, module in enumerate(_modules(model, stage)):
            yield stage, f"layer{stage + 1}.{index}", module
