"""Distil the stages of any network into those of the improved network, without labels.

The stages of the two differ in channels, so a 1×1 convolution per stage, which is thrown away
afterwards, maps ours to the teacher's (FitNets, Romero et al. 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from glomerulab.models.card import Triple
from glomerulab.models.layers import Stage, find_stages, spread_stages
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.transfer.stage_matching import MIN_SPREAD

__all__ = ["NetworkTeacher", "new_projections", "projected_losses"]


@dataclass(frozen=True, slots=True)
class NetworkTeacher:
    """A trained network, and which of its stages are the targets of ours."""

    network: nn.Module
    scale: Tensor
    """With `shift`, from our normalisation of images to the teacher's, shape (3, 1, 1)."""
    shift: Tensor
    chosen: tuple[int, ...]
    """Index of the teacher's stage, for each of ours."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of our stages' maps."""
    means: tuple[Tensor, ...] = ()
    """Of the channels of each target, shape (C, 1, 1)."""
    spreads: tuple[Tensor, ...] = ()
    """Standard deviations, shape (C, 1, 1)."""

    @classmethod
    def measured(
        cls,
        network: nn.Module,
        student: ImprovedSeResNet,
        images: Tensor,
        *,
        ours: tuple[Triple, Triple],
        theirs: tuple[Triple, Triple],
    ) -> "NetworkTeacher":
        """Choose the stages of a network, and measure the statistics of its maps.

        The target of a stage of ours is the teacher's deepest with maps of the same size; where
        there is none, as in a transformer, the one at the same share of the depth.

        Parameters
        ----------
        images : Tensor of float, shape (B, 3, H, W)
            Normalised with `ours`.
        ours, theirs : tuple
            Mean and standard deviation with which images are normalised for student and teacher.

        Raises
        ------
        ValueError
            If the network has no stage whose output has height and width, or does not take images
            of this size.
        """
        (our_mean, our_std), (mean, std) = (
            tuple(torch.tensor(value)[:, None, None] for value in scale) for scale in (ours, theirs)
        )
        sizes = _stage_sizes(student, images[:1])
        teacher = cls(network.eval(), our_std / std, (our_mean - mean) / std, (), sizes)
        found = teacher._stage_maps(images)
        if not found:
            raise ValueError(
                f"{type(network).__name__} has no stage whose output has height and width"
            )
        spread = [len(found) * number // len(sizes) - 1 for number in range(1, len(sizes) + 1)]
        chosen = []
        for size, otherwise in zip(sizes, spread, strict=True):
            alike = [index for index, maps in enumerate(found) if maps.shape[2:] == size]
            chosen.append(alike[-1] if alike else max(0, otherwise))
        teacher = replace(teacher, chosen=tuple(chosen))
        targets = [_resized(found[index], size) for index, size in zip(chosen, sizes, strict=True)]
        means = tuple(maps.mean(dim=(0, 2, 3))[:, None, None] for maps in targets)
        spreads = tuple(
            maps.std(dim=(0, 2, 3)).clamp(min=MIN_SPREAD)[:, None, None] for maps in targets
        )
        return replace(teacher, means=means, spreads=spreads)

    @torch.no_grad()
    def targets(self, images: Tensor) -> list[Tensor]:
        """Return the target of each stage of ours, every channel with mean 0 and spread 1."""
        found = self._stage_maps(images)
        return [
            (_resized(found[index].float(), size) - mean) / spread
            for index, size, mean, spread in zip(
                self.chosen, self.sizes, self.means, self.spreads, strict=True
            )
        ]

    @torch.no_grad()
    def _stage_maps(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = []

        def record(_: nn.Module, __: object, output: object, *, stage: Stage) -> None:
            tensor = stage.tensor(output)
            maps = None if tensor is None else stage.maps(tensor)
            if maps is not None:
                found.append(maps)

        handles = [
            stage.layer.register_forward_hook(partial(record, stage=stage))
            for stage in spread_stages(find_stages(self.network))
        ]
        try:
            self.network(images * self.scale + self.shift)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"the teacher does not take images of {images.shape[-1]} px: {error}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        return found


def new_projections(student: ImprovedSeResNet, teacher: NetworkTeacher) -> nn.ModuleList:
    """Return a 1×1 convolution for each stage, from our channels to the teacher's."""
    channels = [maps.shape[1] for maps in _student_maps(student, torch.zeros(1, 3, 64, 64))]
    return nn.ModuleList(
        nn.Conv2d(n_ours, mean.shape[0], 1)
        for n_ours, mean in zip(channels, teacher.means, strict=True)
    )


def projected_losses(
    student: ImprovedSeResNet,
    projections: nn.ModuleList,
    images: Tensor,
    targets: Sequence[Tensor],
) -> list[Tensor]:
    """Return the mean squared error of each stage, about 1 for one that explains nothing."""
    losses = []
    maps = student.stem(images)
    for stage, projection, target in zip(student.stages, projections, targets, strict=True):
        maps = stage(maps)
        losses.append((projection(maps).float() - target).square().mean())
    return losses


def _student_maps(student: ImprovedSeResNet, images: Tensor) -> list[Tensor]:
    """Return the maps of each stage; mode and statistics of the network stay as they are."""
    was_training = student.training
    student.eval()
    found = []
    with torch.no_grad():
        maps = student.stem(images)
        for stage in student.stages:
            maps = stage(maps)
            found.append(maps)
    student.train(was_training)
    return found


def _stage_sizes(student: ImprovedSeResNet, images: Tensor) -> tuple[tuple[int, int], ...]:
    return tuple((maps.shape[2], maps.shape[3]) for maps in _student_maps(student, images))


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps to a smaller size, or interpolate them to a larger one."""
    if maps.shape[2] >= size[0]:
        return nn.functional.adaptive_avg_pool2d(maps, size)
    return nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
