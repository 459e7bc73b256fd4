"""The first stages of an improved network taught to compute what a ResNet-50's compute.

In the reading ``paper`` the stages give as many channels as ResNet-50's, at the same sizes. So
where ImageNet weights of ResNet-50 are at hand, even of its first stages only, each of those stages
is a target for ours. Behind them, where the ResNet's weights are lacking, the targets are summaries
of its last whole stage, so that what it found reaches the pooled features. No label is needed. It
must not know where images and weights come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glomerulab.models.networks.improved_seresnet import ImprovedModule, ImprovedSeResNet
from glomerulab.models.transfer.load_weights import Loaded
from glomerulab.models.transfer.resnet_norms import carry_stem, set_identity

__all__ = ["StageTeacher", "align_with", "first_modules", "matching_losses", "n_whole_stages"]

N_STAGES = 4
MAX_STATISTICS = 4
LEAST_SPREAD = 1e-2
"""Channels of a target that hardly vary are divided by no less than this."""


@dataclass(frozen=True, slots=True)
class StageTeacher:
    """The leading stages of a ResNet, summaries of the last, and what all look like on average."""

    stem: nn.Module
    stages: tuple[nn.Module, ...]
    n_summaries: int
    """Targets behind those of the stages."""
    means: tuple[Tensor, ...]
    """Of each stage's channels, shape (C, 1, 1)."""
    spreads: tuple[Tensor, ...]
    """Standard deviations, shape (C, 1, 1)."""

    @classmethod
    def measured(cls, resnet: nn.Module, images: Tensor, *, n_stages: int) -> "StageTeacher":
        """Take the leading stages of a ResNet of timm, and measure them.

        Parameters
        ----------
        resnet : Module
        images : Tensor of float, shape (B, 3, H, W)
        n_stages : int
            From 1 to 4.

        Returns
        -------
        StageTeacher

        Raises
        ------
        ValueError
            If there is no such number of stages.
        """
        if not 1 <= n_stages <= N_STAGES:
            raise ValueError(f"n_stages must be from 1 to {N_STAGES}, got {n_stages}")
        layers = dict(resnet.eval().named_children())
        stem = nn.Sequential(*(layers[name] for name in ("conv1", "bn1", "act1", "maxpool")))
        stages = tuple(layers[f"layer{number}"] for number in range(1, n_stages + 1))
        n_summaries = min(N_STAGES - n_stages, MAX_STATISTICS.bit_length() - 1)
        teacher = cls(stem, stages, n_summaries, (), ())
        with torch.no_grad():
            found = teacher._maps(images)
        means = tuple(maps.mean(dim=(0, 2, 3))[:, None, None] for maps in found)
        spreads = tuple(
            maps.std(dim=(0, 2, 3)).clamp(min=LEAST_SPREAD)[:, None, None] for maps in found
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
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found + [_summary(maps, halvings) for halvings in range(1, self.n_summaries + 1)]


def _summary(maps: Tensor, halvings: int) -> Tensor:
    """Halve a map's sides so often, and double its channels: as a next stage does.

    Each position tells of the block that it stands for: mean and maximum, from the second halving
    on also minimum and standard deviation.
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


def n_whole_stages(loaded: Loaded) -> int:
    """Count the leading stages of a ResNet of which a file held every weight.

    Parameters
    ----------
    loaded : Loaded
        Of a ResNet of timm, its head aside.

    Returns
    -------
    int
        0 where the stem itself is not whole.
    """
    lacking = (*loaded.missing, *loaded.misshapen, *loaded.reset)
    if any(key.startswith(("conv1.", "bn1.")) for key in lacking):
        return 0
    n_whole = 0
    while n_whole < N_STAGES and not any(key.startswith(f"layer{n_whole + 1}.") for key in lacking):
        n_whole += 1
    return n_whole


@torch.no_grad()
def align_with(
    model: ImprovedSeResNet,
    teacher: StageTeacher,
    weights: Mapping[str, Tensor],
    images: Tensor,
) -> None:
    """Give an improved network the teacher's stem, and norms that undo the scaling of the targets.

    Parameters
    ----------
    model : ImprovedSeResNet
        Of the reading ``paper``; changed in place.
    teacher : StageTeacher
    weights : mapping of str to Tensor
        The teacher's.
    images : Tensor of float, shape (B, 3, H, W)
        For the norm behind the stem.

    Raises
    ------
    ValueError
        If the stages have other channels than the teacher's.

    Notes
    -----
    The stem is carried over exactly: the scale of its norm goes into the convolution, its offset
    into the first module's norm, which is the identity otherwise. Where a target is matched, the
    norm that reads it adds mean / spread: its ReLU then cuts where the teacher's did.
    """
    first, *others = (module.norm1 for module in first_modules(model))
    readers = [*others, model.norm]
    for reader, mean in zip(readers, teacher.means, strict=False):
        if reader.num_features != mean.numel():
            raise ValueError(
                f"a stage gives {reader.num_features} channels and the teacher's "
                f"{mean.numel()}; only the reading 'paper' has those of ResNet-50"
            )
    offset = carry_stem(model.stem, weights)
    set_identity(first, model.stem(images), offset)
    for reader, mean, spread in zip(readers, teacher.means, teacher.spreads, strict=False):
        reader.bias.copy_((mean / spread).flatten())


def matching_losses(
    model: ImprovedSeResNet, images: Tensor, targets: Sequence[Tensor], *, forced: bool
) -> list[Tensor]:
    """Return for each target the mean square that the network's stage leaves unexplained.

    Parameters
    ----------
    model : ImprovedSeResNet
    images : Tensor of float, shape (B, 3, H, W)
    targets : sequence of Tensor
        Of `StageTeacher.targets`.
    forced : bool
        Whether each stage reads the target of the stage before it, rather than what the network
        made of it: stages then learn side by side.

    Returns
    -------
    list of Tensor
        Scalars; about 1 for a stage that explains nothing.
    """
    with torch.no_grad():  # the stem is the teacher's already
        maps = model.stem(images)
    losses = []
    for stage, target in zip(model.stages, targets, strict=False):
        made = stage(maps)
        losses.append((made.float() - target).square().mean())
        maps = target if forced else made
    return losses


def first_modules(model: ImprovedSeResNet) -> list[ImprovedModule]:
    """Return the first module of each stage."""
    found = [next(iter(stage.children())) for stage in model.stages]
    return [module for module in found if isinstance(module, ImprovedModule)]
