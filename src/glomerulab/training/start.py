"""The initial weights of a training: random, from a file, ImageNet's by name, or another run.

``start.json`` in the run folder records which weights were loaded.
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.card import ModelCard, Triple
from glomerulab.models.checkpoint import read_checkpoint
from glomerulab.models.layers import freeze_first, head_layers
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.published import find_published, is_published
from glomerulab.models.transfer.separable import PairEnergy, is_basic_resnet, transfer_basic_resnet
from glomerulab.models.transfer.weight_files import FileWeights, read_weights, shortened
from glomerulab.models.transfer.weights import (
    LoadResult,
    has_local_weights,
    imagenet_scale,
    imagenet_weights,
    load_matching,
)
from glomerulab.runtime.files import atomic_write, read_json
from glomerulab.runtime.sealing import open_model_folder
from glomerulab.training.config import IMAGENET, LOCAL_IMAGENET, TrainConfig
from glomerulab.training.dataset import CropDataset

START_FILE = "start.json"
N_NORM_IMAGES = 32
"""Images that batch norms are measured on after a transfer; each epoch uses more."""
TRAINING_PARTS = re.compile(
    r"(?:head|heads|head_dist|fc|classifier|last_linear|\w*proj(?:ector|ection)\w*|\w*_head|"
    r"predictor|prototypes|decoder\w*|aux\w*|queue\w*|criterion|\w*loss\w*)",
    re.IGNORECASE,
)
"""Top-level parts that a network is trained with and used without."""
TRAINING_TENSORS = re.compile(
    r"num_batches_tracked|n_averaged|mask_token|attn_mask|relative_position_index|"
    r"relative_coords_table|total_ops|total_params"
)
"""Tensors that are counted, computed, or used in pretraining only."""


@dataclass(frozen=True, slots=True)
class Start:
    """The origin of a network's initial weights."""

    source: str
    """``random``, or the file or folder."""
    pretrained: tuple[str, ...] = ()
    """Entries of the network's ``state_dict()`` that come from there."""
    loaded: LoadResult | None = None
    """Set if tensors were loaded by name."""
    energies: tuple[PairEnergy, ...] = ()
    """Set if pairs replace 3×3 kernels: the share of each kernel that is kept."""
    notes: tuple[str, ...] = ()
    """What else the user should know, such as which of several networks in a file was taken."""

    def lines(self) -> list[str]:
        """Describe for the user which weights were loaded and which were not."""
        if self.energies:
            return [
                f"start: {self.source}, each 3×3 kernel as its best pair of 1×3 and 3×1",
                *(
                    f"  {pair.layer}: {pair.energy:.1%} of the kernel kept"
                    for pair in self.energies
                ),
                *(f"  {note}" for note in self.notes),
            ]
        if self.loaded is None:
            return [f"start: {self.source}", *(f"  {note}" for note in self.notes)]
        lines = [f"start: {self.source}, {len(self.loaded.loaded)} tensors loaded"]
        for names, reason in (
            (self.loaded.missing, "not in the file, random"),
            (self.loaded.misshapen, "of another shape, random"),
            (self.loaded.reset, "batch norm values that follow missing layers, not loaded"),
            (self.loaded.unused, "in the file only, not used"),
        ):
            if names:
                lines.append(f"  {len(names)} {reason}: {shortened(names)}")
        return lines + [f"  {note}" for note in self.notes]


def set_start(
    model: nn.Module,
    config: TrainConfig,
    card: ModelCard,
    training: CropDataset,
    *,
    is_resumed: bool,
) -> Start:
    """Load the initial weights into a network, and freeze the configured share of them."""
    start = read_start(config.out) if is_resumed else _load_start(model, config, card, training)
    share = config.start.frozen_share
    if share > 0.0:
        if not start.pretrained:
            raise ConfigError("start.frozen_share: nothing is pretrained; set start.weights")
        freeze_first(model, start.pretrained, share=share, input_size=card.input_size)
    return start


def _load_start(
    model: nn.Module, config: TrainConfig, card: ModelCard, training: CropDataset
) -> Start:
    wanted = config.start.weights
    if wanted is None:
        return Start("random")
    if wanted == LOCAL_IMAGENET and not has_local_weights(card.model):
        return Start("random", notes=(_no_local_weights(card.model, config.kind),))
    found, source, run_card = _read_weights(wanted, card, model)
    notes = _notes_on_file(found)
    if isinstance(model, ImprovedSeResNet) and is_basic_resnet(found.tensors, model):
        energies = transfer_basic_resnet(model, found.tensors, _some_images(training, config.seed))
        new = (*head_layers(model), "attention.")
        pretrained = [key for key in model.state_dict() if not any(part in key for part in new)]
        return Start(source, tuple(pretrained), energies=energies, notes=notes)
    head = head_layers(model)
    loaded = load_matching(model, found.tensors, input_size=card.input_size, leave=head)
    of_head = tuple(key for key in loaded.unused if _is_below(key, head))
    loaded = replace(loaded, unused=tuple(key for key in loaded.unused if key not in of_head))
    if run_card is not None and not config.start.partial:
        _check_same_network(loaded, run_card, card, where=source)
    n_fitting = len(loaded.loaded) + len(loaded.reset) + len(of_head)
    if not any(key.endswith("weight") for key in loaded.loaded) or (
        not config.start.partial and 2 * n_fitting < len(found.tensors)
    ):
        raise CheckpointError(
            f"the weights are of another network: {n_fitting} of {len(found.tensors)} tensors fit "
            f"{card.model}, which has {len(model.state_dict())}. {_first_names(found, model)}. Set "
            "model.name to their network. An improved network takes those of a ResNet-34, or a run "
            "of `glomerulab distill` for ResNet-50's",
            where=source,
        )
    if not config.start.partial:
        _check_nothing_dropped(loaded, card, where=source)
    if of_head:
        n_classes = max(len(found.tensors[key]) for key in of_head)
        note = (
            f"the head for {n_classes} classes is not used ({shortened(of_head)}); the new one for "
            f"{len(card.labels)} labels begins random"
        )
        notes = (*notes, note)
    return Start(source, loaded.loaded, loaded, notes=notes)


def _no_local_weights(name: str, kind: str) -> str:
    note = (
        f"this machine has no ImageNet weights for {name}; set start.weights to a file, a run "
        "folder or, to download them, imagenet"
    )
    if kind == "probe":
        note += ". A probe of random features is weak; kind = network trains all layers"
    return note


def write_start(start: Start, run: Path) -> None:
    """Write ``start.json`` into a run folder."""
    with atomic_write(run / START_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(start), indent=1), encoding="utf-8")


def read_start(run: Path) -> Start:
    """Read ``start.json`` of a run folder; without the file the start was random."""
    path = run / START_FILE
    if not path.is_file():
        return Start("random")
    try:
        facts = read_json(path, "record of the initial weights", error=CheckpointError)
        return Start(
            str(facts["source"]),
            tuple(facts["pretrained"]),
            None if facts["loaded"] is None else LoadResult(**_tuples(facts["loaded"])),
            tuple(PairEnergy(**pair) for pair in facts["energies"]),
            tuple(facts.get("notes", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the record of the initial weights is damaged: {error}; train again", where=str(path)
        ) from error


def _read_weights(
    wanted: str, card: ModelCard, model: nn.Module
) -> tuple[FileWeights, str, ModelCard | None]:
    """Return the weights of a name, a file or a run, their location, and the card of a run."""
    networks = [model]
    if isinstance(model, ImprovedSeResNet):
        networks.append(create_model("timm:resnet34", 1))
    if wanted in {IMAGENET, LOCAL_IMAGENET}:
        _check_same_scale(*imagenet_scale(card.model), card, where=f"ImageNet, {card.model}")
        path = imagenet_weights(card.model)
        return read_weights(path, *networks), str(path), None
    if is_published(wanted):
        published = find_published(wanted)
        _check_same_scale(published.mean, published.std, card, where=wanted)
        return read_weights(published.weights, *networks), wanted, None
    path = Path(wanted)
    if not path.is_dir():
        return read_weights(path, *networks), wanted, None
    weights, run_card = read_checkpoint(open_model_folder(path))
    _check_same_scale(run_card.mean, run_card.std, card, where=wanted)
    return FileWeights(weights), wanted, run_card


def _notes_on_file(found: FileWeights) -> tuple[str, ...]:
    """Say which of the tensors of a file were taken for the network."""
    notes = []
    if found.prefix:
        notes.append(f"names are read without {found.prefix!r}")
    if found.alternatives:
        notes.append(
            f"the file has several networks: {found.prefix or 'the names without prefix'} is used, "
            f"{shortened(found.alternatives)} not"
        )
    if found.outside:
        notes.append(
            f"{len(found.outside)} tensors outside it are not used: {shortened(found.outside)}"
        )
    return tuple(notes)


def _first_names(found: FileWeights, model: nn.Module) -> str:
    counters = "num_batches_tracked"  # which safetensors puts first
    names = tuple(f"{found.prefix}{key}" for key in found.tensors if not key.endswith(counters))
    others = f", and outside {found.prefix!r} {shortened(found.outside)}" if found.outside else ""
    network = shortened(tuple(model.state_dict()))
    return f"The file has {shortened(names)}{others}; the network has {network}"


def _check_nothing_dropped(loaded: LoadResult, card: ModelCard, *, where: str) -> None:
    """Reject weights with learned tensors, such as LayerScale, that the network has no place for.

    Without them the network would compute something else than what was trained.
    """
    dropped = (*loaded.misshapen, *(key for key in loaded.unused if not _is_for_training_only(key)))
    if dropped:
        raise CheckpointError(
            f"the weights are of a variant of {card.model}: {len(dropped)} learned tensors have no "
            f"place in it or another shape ({shortened(dropped)}). Set model.name and "
            "model.options to the variant that has them, or set start.partial = true to train "
            "without them",
            where=where,
        )


def _is_for_training_only(key: str) -> bool:
    names = key.split(".")
    return bool(TRAINING_PARTS.fullmatch(names[0]) or TRAINING_TENSORS.fullmatch(names[-1]))


def _is_below(key: str, layers: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{layer}.") for layer in layers)


def _check_same_scale(mean: Triple, std: Triple, card: ModelCard, *, where: str) -> None:
    if (mean, std) != (card.mean, card.std):
        raise ConfigError(
            f"the weights were trained on images normalised with mean {list(mean)} and std "
            f"{list(std)}; set model.mean and model.std to the same",
            where=where,
        )


def _check_same_network(
    loaded: LoadResult, run_card: ModelCard, card: ModelCard, *, where: str
) -> None:
    """Reject partially matching weights of a run."""
    different = (*loaded.unused, *loaded.missing, *loaded.misshapen)
    if not different:
        return
    if run_card.model != card.model:
        reason = f"it has {run_card.model}, the new run {card.model}"
    else:
        keys = sorted(run_card.options.keys() | card.options.keys())
        reason = (
            "; ".join(
                f"{key} is {run_card.options.get(key, 'not set')} there and "
                f"{card.options.get(key, 'not set')} here"
                for key in keys
                if run_card.options.get(key) != card.options.get(key)
            )
            or "it was written by another version"
        )
    raise ConfigError(
        f"the run has another network: {reason}; tensors that differ: {shortened(different)}. "
        "Set model.name and model.options to the run's; or set start.partial = true to load what "
        "fits and leave the rest random",
        where=where,
    )


def _some_images(training: CropDataset, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(training), generator=generator)[:N_NORM_IMAGES].tolist()
    return torch.stack([training[index][0] for index in indices])


def _tuples(facts: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in facts.items()}
