"""Distil the first stages of a ResNet-50 into those of the improved network, without labels.

In the reading ``paper`` the stages give as many channels as ResNet-50's, at the same sizes. So
each stage of a ResNet-50 with ImageNet weights is a target for ours, even if only its first stages
have weights. Behind them the targets are summaries of its last complete stage, so that what it
learned reaches the pooled features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glomerulab.models.networks.improved_seresnet import ImprovedModule, ImprovedSeResNet
from glomerulab.models.transfer.separable import copy_stem, set_identity
from glomerulab.models.transfer.weights import LoadResult

__all__ = ["StageTeacher", "align_with_teacher", "matching_losses", "n_complete_stages"]

N_STAGES = 4
MAX_STATISTICS = 4
MIN_SPREAD = 1e-2
"""Lower bound of the standard deviation that a channel of a target is divided by."""


@dataclass(frozen=True, slots=True)
class StageTeacher:
    """The leading stages of a ResNet, summaries of the last, and the statistics of both."""

    stem: nn.Module
    stages: tuple[nn.Module, ...]
    n_summaries: int
    """Number of targets behind those of the stages."""
    means: tuple[Tensor, ...]
    """Of the channels of each target, shape (C, 1, 1)."""
    spreads: tuple[Tensor, ...]
    """Standard deviations, shape (C, 1, 1)."""

    @classmethod
    def measured(cls, resnet: nn.Module, images: Tensor, *, n_stages: int) -> "StageTeacher":
        """Take the leading stages of a ResNet of timm, and measure their statistics.

        Parameters
        ----------
        images : Tensor of float, shape (B, 3, H, W)
        n_stages : int
            From 1 to 4.

        Raises
        ------
        ValueError
            If `n_stages` is out of range.
        """
        if not 1 <= n_stages <= N_STAGES:
            raise ValueError(f"n_stages must be from 1 to {N_STAGES}, got {n_stages}")
        layers = dict(resnet.eval().named_children())
        stem = nn.Sequential(*(layers[name] for name in ("conv1", "bn1", "act1", "maxpool")))
        stages = tuple(layers[f"layer{number}"] for number in range(1, n_stages + 1))
        n_summaries = min(N_STAGES - n_stages, MAX_STATISTICS.bit_length() - 1)
        teacher = cls(stem, stages, n_summaries, (), ())
        with torch.no_grad():
            targets = teacher._maps(images)
        means = tuple(maps.mean(dim=(0, 2, 3))[:, None, None] for maps in targets)
        spreads = tuple(
            maps.std(dim=(0, 2, 3)).clamp(min=MIN_SPREAD)[:, None, None] for maps in targets
        )
        return replace(teacher, means=means, spreads=spreads)

    @torch.no_grad()
    def targets(self, images: Tensor) -> list[Tensor]:
        """Return the target of each stage of ours, every channel with mean 0 and spread 1."""
        return [
            (maps.float() - mean) / spread
            for maps, mean, spread in zip(self._maps(images), self.means, self.spreads, strict=True)
        ]

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps = self.stem(images)
        outputs = []
        for stage in self.stages:
            maps = stage(maps)
            outputs.append(maps)
        return outputs + [_summary(maps, halvings) for halvings in range(1, self.n_summaries + 1)]


def _summary(maps: Tensor, halvings: int) -> Tensor:
    """Halve the sides of a map `halvings` times and double its channels, as further stages do.

    Each position holds statistics of its block: mean and maximum, from the second halving on also
    minimum and standard deviation.
    """
    height, width = (-(-side // 2**halvings) for side in maps.shape[2:])
    pooled = nn.functional.adaptive_avg_pool2d(maps, (height, width))
    highest = nn.functional.adaptive_max_pool2d(maps, (height, width))
    if halvings == 1:
        return torch.cat([pooled, highest], dim=1)
    lowest = -nn.functional.adaptive_max_pool2d(-maps, (height, width))
    squares = nn.functional.adaptive_avg_pool2d(maps.float().square(), (height, width))
    deviation = (squares - pooled.float().square()).clamp(min=0.0).sqrt()
    return torch.cat([pooled, highest, lowest, deviation.to(maps.dtype)], dim=1)


def n_complete_stages(result: LoadResult) -> int:
    """Count the leading stages of a ResNet of timm that a file had every weight of.

    0 if the stem itself is incomplete.
    """
    lacking = (*result.missing, *result.misshapen, *result.reset)
    if any(key.startswith(("conv1.", "bn1.")) for key in lacking):
        return 0
    n_complete = 0
    while n_complete < N_STAGES and not any(
        key.startswith(f"layer{n_complete + 1}.") for key in lacking
    ):
        n_complete += 1
    return n_complete


@torch.no_grad()
def align_with_teacher(
    model: ImprovedSeResNet,
    teacher: StageTeacher,
    weights: Mapping[str, Tensor],
    images: Tensor,
) -> None:
    """Copy the teacher's stem, and set the norms to undo the scaling of the targets.

    Parameters
    ----------
    model : ImprovedSeResNet
        Of the reading ``paper``; changed in place.
    weights : mapping of str to Tensor
        Weights of the teacher.
    images : Tensor of float, shape (B, 3, H, W)
        For the statistics of the norm behind the stem.

    Raises
    ------
    ValueError
        If the stages have other channels than the teacher's.

    Notes
    -----
    The stem is copied exactly: the scale of its norm goes into the convolution, its offset into the
    norm of the first module, which is the identity otherwise. The norm that reads a matched target
    adds mean / spread, so that its ReLU cuts where the teacher's does.
    """
    first, *others = (module.norm1 for module in first_modules(model))
    readers = [*others, model.norm]
    for reader, mean in zip(readers, teacher.means, strict=False):
        if reader.num_features != mean.numel():
            raise ValueError(
                f"a stage gives {reader.num_features} channels and the teacher's "
                f"{mean.numel()}; only the reading 'paper' has those of ResNet-50"
            )
    offset = copy_stem(model.stem, weights)
    set_identity(first, model.stem(images), offset)
    for reader, mean, spread in zip(readers, teacher.means, teacher.spreads, strict=False):
        reader.bias.copy_((mean / spread).flatten())


def matching_losses(
    model: ImprovedSeResNet, images: Tensor, targets: Sequence[Tensor], *, forced: bool
) -> list[Tensor]:
    """Return the mean squared error of each stage, about 1 for one that explains nothing.

    Parameters
    ----------
    images : Tensor of float, shape (B, 3, H, W)
    targets : sequence of Tensor
        Of `StageTeacher.targets`.
    forced : bool
        Teacher forcing: each stage reads the target of the stage before it instead of that stage's
        output, so that all stages learn at the same time.
    """
    with torch.no_grad():  # the stem is the teacher's already
        maps = model.stem(images)
    losses = []
    for stage, target in zip(model.stages, targets, strict=False):
        output = stage(maps)
        losses.append((output.float() - target).square().mean())
        maps = target if forced else output
    return losses


def first_modules(model: ImprovedSeResNet) -> list[ImprovedModule]:
    """Return the first module of each stage."""
    modules = [next(iter(stage.children())) for stage in model.stages]
    return [module for module in modules if isinstance(module, ImprovedModule)]
