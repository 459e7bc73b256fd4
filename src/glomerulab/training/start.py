"""What a training starts from: random weights, a file, ImageNet's by name, or another run.

What was taken, and what was not, is kept in ``start.json`` of the run folder.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.checkpoint import ModelCard, read_checkpoint
from glomerulab.models.layers import freeze_first, head_layers
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.transfer.separable import PairEnergy, is_basic_resnet, transfer_basic_resnet
from glomerulab.models.transfer.weights import (
    LoadResult,
    imagenet_scale,
    imagenet_weights,
    load_matching,
    read_weights,
)
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.sealing import require_run_folder
from glomerulab.training.config import IMAGENET, TrainConfig, Triple
from glomerulab.training.dataset import CropDataset

__all__ = ["Echo", "Start", "begin", "freeze", "read_start", "set_start", "write_start"]

Echo = Callable[[str], None]
"""Takes a line that a person should read."""

FILE = "start.json"
N_NORM_IMAGES = 32
"""Images that batch norms are set on after a transfer; each epoch measures them on more."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a network began with."""

    source: str
    """``random``, or the file or folder."""
    pretrained: tuple[str, ...] = ()
    """Entries of the network's ``state_dict()`` that come from there."""
    loaded: LoadResult | None = None
    """Where tensors were taken by name."""
    energies: tuple[PairEnergy, ...] = ()
    """Where pairs stand for 3×3 kernels: what each of them keeps."""

    def lines(self) -> list[str]:
        """Say in plain words what was taken and what was not."""
        if self.energies:
            return [
                f"start: {self.source}, each 3×3 kernel as its best pair of 1×3 and 3×1",
                *(
                    f"  {pair.layer}: {pair.energy:.1%} of the kernel kept"
                    for pair in self.energies
                ),
            ]
        if self.loaded is None:
            return [f"start: {self.source}"]
        told = [f"start: {self.source}, {len(self.loaded.loaded)} tensors taken"]
        for names, what in (
            (self.loaded.missing, "not in the file, random"),
            (self.loaded.misshapen, "of another shape, random"),
            (self.loaded.reset, "values of batch norms behind what the file lacks, not taken"),
            (self.loaded.unused, "in the file only, not used"),
        ):
            if names:
                told.append(f"  {len(names)} {what}: {_shortened(names)}")
        return told


def set_start(
    model: nn.Module,
    config: TrainConfig,
    card: ModelCard,
    training: CropDataset,
    *,
    is_resumed: bool,
) -> Start:
    """Let a new run begin with the weights it was told to, and freeze what is to stay.

    Parameters
    ----------
    model : Module
        With random weights; changed in place.
    config : TrainConfig
    card : ModelCard
        Of the run.
    training : CropDataset
        Not augmented; batch norms are measured on some of its images where that is needed.
    is_resumed : bool
        Whether the weights come from a saved state: then only the freezing is repeated.

    Returns
    -------
    Start
        For `write_start`; nothing is written yet.
    """
    start = read_start(config.out) if is_resumed else begin(model, config, card, training)
    freeze(model, start, config, card)
    return start


def begin(model: nn.Module, config: TrainConfig, card: ModelCard, training: CropDataset) -> Start:
    """Put the weights that a configuration names into a network with random ones.

    Parameters
    ----------
    model : Module
        Changed in place.
    config : TrainConfig
    card : ModelCard
        Of the run that begins.
    training : CropDataset
        Not augmented; batch norms are measured on some of its images where that is needed.

    Returns
    -------
    Start

    Raises
    ------
    CheckpointError
        If the weights cannot be read or downloaded, or none of them fits.
    ConfigError
        If they were trained on images normalised otherwise, or a run's are of another network.
    """
    named = config.start.weights
    if named is None:
        return Start("random")
    weights, source, theirs = _weights(named, card)
    if isinstance(model, ImprovedSeResNet) and is_basic_resnet(weights, model):
        energies = transfer_basic_resnet(model, weights, _some_images(training, config.seed))
        new = (*head_layers(model), "attention.")
        pretrained = [key for key in model.state_dict() if not any(part in key for part in new)]
        return Start(source, tuple(pretrained), energies=energies)
    loaded = load_matching(model, weights, input_size=card.input_size, leave=head_layers(model))
    if theirs is not None:
        _refuse_other_network(loaded, theirs, card, head_layers(model), where=source)
    if not any(key.endswith("weight") for key in loaded.loaded):
        raise CheckpointError(
            f"no weight in it is of {card.model}; "
            "give weights of that network; for an improved one those of a ResNet-34, or a run of "
            "`glomerulab distill` for ResNet-50's",
            where=source,
        )
    return Start(source, loaded.loaded, loaded)


def freeze(model: nn.Module, start: Start, config: TrainConfig, card: ModelCard) -> None:
    """Freeze the share of the pretrained weights that a configuration asks for.

    Parameters
    ----------
    model : Module
        Changed in place.
    start : Start
    config : TrainConfig
    card : ModelCard

    Raises
    ------
    ConfigError
        If a share is asked for and nothing is pretrained.
    """
    share = config.start.frozen_share
    if share == 0.0:
        return
    if not start.pretrained:
        raise ConfigError("start.frozen_share: nothing is pretrained; name start.weights")
    freeze_first(model, start.pretrained, share=share, input_size=card.input_size)


def write_start(start: Start, run: Path) -> None:
    """Write a start into a run folder as ``start.json``."""
    with atomic_write(run / FILE) as temporary:
        temporary.write_text(json.dumps(asdict(start), indent=1), encoding="utf-8")


def read_start(run: Path) -> Start:
    """Read what `write_start` wrote; a run without it began at random.

    Parameters
    ----------
    run : Path

    Returns
    -------
    Start

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        return Start("random")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return Start(
            str(facts["source"]),
            tuple(facts["pretrained"]),
            None if facts["loaded"] is None else LoadResult(**_tuples(facts["loaded"])),
            tuple(PairEnergy(**pair) for pair in facts["energies"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"is damaged: {error}; train again", where=str(path)) from error


def _weights(named: str, card: ModelCard) -> tuple[dict[str, Tensor], str, ModelCard | None]:
    """Read the weights of a name, a file or a run; say where they were, and a run's card."""
    if named == IMAGENET:
        _refuse_other_scale(*imagenet_scale(card.model), card, where=f"ImageNet, {card.model}")
        path = imagenet_weights(card.model)
        return read_weights(path), str(path), None
    path = Path(named)
    if not path.is_dir():
        return read_weights(path), named, None
    require_run_folder(path)
    weights, theirs = read_checkpoint(path)
    _refuse_other_scale(theirs.mean, theirs.std, card, where=named)
    return weights, named, theirs


def _refuse_other_scale(mean: Triple, std: Triple, card: ModelCard, *, where: str) -> None:
    if (mean, std) != (card.mean, card.std):
        raise ConfigError(
            f"its images had mean {list(mean)} taken off and were divided by {list(std)}; set "
            "model.mean and model.std to the same",
            where=where,
        )


def _refuse_other_network(
    loaded: LoadResult, theirs: ModelCard, card: ModelCard, head: tuple[str, ...], *, where: str
) -> None:
    """Take a run only whole: half of what it learned computes nothing that it learned."""
    unused = [key for key in loaded.unused if key.rpartition(".")[0] not in head]
    strange = (*unused, *loaded.missing, *loaded.misshapen)
    if not strange:
        return
    if theirs.model != card.model:
        differs = f"it is of {theirs.model}, this one of {card.model}"
    else:
        keys = sorted(theirs.options.keys() | card.options.keys())
        differs = (
            "; ".join(
                f"{key} is {theirs.options.get(key, 'not set')} there and "
                f"{card.options.get(key, 'not set')} here"
                for key in keys
                if theirs.options.get(key) != card.options.get(key)
            )
            or "it was made by another version"
        )
    raise ConfigError(
        f"another network than this one: {differs}; tensors that differ: {_shortened(strange)}. "
        "Set model.name and model.options to the run's; or, to take what fits and leave the rest "
        "random, name the .safetensors file in its checkpoint folder instead of the run",
        where=where,
    )


def _some_images(training: CropDataset, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(training), generator=generator)[:N_NORM_IMAGES].tolist()
    return torch.stack([training[place][0] for place in places])


def _tuples(facts: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in facts.items()}


def _shortened(names: tuple[str, ...], n_shown: int = 3) -> str:
    more = len(names) - n_shown
    return ", ".join(names[:n_shown]) + (f" and {more} more" if more > 0 else "")
