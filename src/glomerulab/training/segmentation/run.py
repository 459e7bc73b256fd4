"""One training of a segmenter, from sets of images with masks to a run folder.

As in `glomerulab.training.loop`, an epoch depends on the seed, its own number and the state that
the last one left, so that a resumed run ends with the same weights.
"""

import logging
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from glomerulab.errors import ConfigError, OutputError, TrainingError
from glomerulab.models.card import SegmenterCard
from glomerulab.models.hardware import autocast, uses_bfloat16
from glomerulab.models.segmentation import create_segmenter, save_segmenter, sees_whole_tile
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import changed_settings, describe_changes
from glomerulab.runtime.sealing import SEAL_FILE, refuse_other_model
from glomerulab.structures.classes import structure
from glomerulab.training.augmentation import OnlineAugmentation
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.dataset import BatchLoader, ItemKey
from glomerulab.training.history import EpochRow, check_finite, progress_text, write_history
from glomerulab.training.loop import make_optimizer
from glomerulab.training.run_folder import machine_facts, write_json
from glomerulab.training.segmentation.config import (
    SegmenterConfig,
    segmenter_values,
    write_segmenter_config,
)
from glomerulab.training.segmentation.fields import Field
from glomerulab.training.segmentation.losses import UNKNOWN, segmentation_loss, soft_counts
from glomerulab.training.segmentation.patches import PatchDataset
from glomerulab.training.segmentation.sets import Fields
from glomerulab.training.segmentation.start import input_scale, load_start
from glomerulab.training.state import TrainingState, has_state, load_state, save_state

__all__ = ["Parts", "divide", "hold_out", "remove_state", "train_segmenter_run"]

logger = logging.getLogger(__name__)

WITHOUT_EFFECT = ("out", "n_workers", "held_out_share")
FIELDS_FILE = "fields.csv"
MAX_VALIDATION = 48
"""Patches of held-out fields on which each epoch is measured; at most a quarter of an epoch's, as
those on which batch norm is."""
VALIDATION_EPOCH = 1 << 30
"""In place of an epoch in the seed of patches that are the same in every epoch."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The fields that a network is trained on, and those that it never sees."""

    training: list[Field]
    held_out: list[Field]


def divide(fields: Sequence[Field], n_folds: int, *, seed: int) -> dict[str, int]:
    """Return the fold of each group; every set and stain is spread over the folds.

    Raises
    ------
    TrainingError
        If there are fewer groups than folds.
    """
    kinds: dict[str, tuple[str, ...]] = {}
    for one in fields:
        kind = f"{one.facts.set_name} {one.facts.stain}"
        kinds[one.facts.group] = tuple(sorted({*kinds.get(one.facts.group, ()), kind}))
    if len(kinds) < n_folds:
        raise TrainingError(
            f"the sets have {len(kinds)} groups, and {n_folds} folds need one each; give fewer "
            "folds, or group by another column"
        )
    rng = np.random.default_rng(seed)
    shuffled = [sorted(kinds)[number] for number in rng.permutation(len(kinds))]
    ordered = sorted(shuffled, key=lambda group: kinds[group])
    return {group: number % n_folds for number, group in enumerate(ordered)}


def hold_out(fields: Sequence[Field], share: float, *, seed: int) -> Parts:
    """Hold out a share of the groups."""
    n_groups = len({one.facts.group for one in fields})
    n_held = round(share * n_groups)
    if not n_held:
        return Parts(list(fields), [])
    n_folds = max(2, min(n_groups, round(n_groups / n_held)))
    fold_of = divide(fields, n_folds, seed=seed)
    return Parts(
        [one for one in fields if fold_of[one.facts.group]],
        [one for one in fields if not fold_of[one.facts.group]],
    )


def train_segmenter_run(
    config: SegmenterConfig,
    parts: Parts,
    fields: Fields,
    *,
    resume: bool = False,
    track: Track = silent,
    echo: Callable[[str], None] = logger.info,
) -> Path:
    """Train a network and write its run folder, all but the scores and the seal.

    Raises
    ------
    OutputError
        If the folder holds a run, and `resume` is false.
    ConfigError
        If a resumed run has other settings or fields, or the network cannot be built.
    TrainingError
        If a structure is never marked in the training part, or the loss is not finite.
    """
    run = config.out
    rows = field_rows(parts, fields)
    _check_run_folder(run, config, rows, resume=resume)
    if (run / SEAL_FILE).is_file():
        return run
    structures = config.ordered_structures()
    _check_structures(parts.training, structures)
    mean, std, origin = input_scale(config)
    card = SegmenterCard(
        architecture=config.architecture,
        encoder=config.encoder,
        structures=structures,
        cores=tuple(one for one in structures if structure(one).kind == "object"),
        mpp=config.mpp,
        patch_px=config.patch_px,
        mean=mean,
        std=std,
        stains_seen=tuple(sorted({one.facts.stain for one in parts.training if one.facts.stain})),
        trained_on_synthetic=any(one.facts.is_synthetic for one in parts.training),
        origin=origin,
    )
    accelerator = _accelerator(config)
    with torch.random.fork_rng(devices=[]):
        network = create_segmenter(card, seed=config.seed)
        is_resumed = has_state(run / "state")
        line = "" if is_resumed else load_start(network, config, card)
        _check_forward(network, config)
        _open_run(run, config, rows, device=str(accelerator.device))
        if line:
            write_json({"source": line}, run / "start.json")
            echo(line)
            if sees_whole_tile(network):
                echo(
                    f"warning: layers of {config.encoder} average over the whole image, so what it "
                    "gives a slide depends on the size of the tiles; tf_efficientnet_lite2 has "
                    "none of them"
                )
        _fit(network, card, parts, config, accelerator, track=track)
    return run


def field_rows(parts: Parts, fields: Fields) -> list[dict[str, str]]:
    """Return the rows of ``fields.csv``: what was trained on, held out, and not used."""
    rows = [
        {
            "set": one.facts.set_name,
            "field": one.facts.name,
            "part": part,
            "group": one.facts.group,
            "stain": one.facts.stain or "",
            "digest": one.facts.digest,
            "reason": "",
        }
        for part, some in (("train", parts.training), ("held out", parts.held_out))
        for one in some
    ]
    rows += [
        {
            "set": one.set_name,
            "field": one.name,
            "part": "not used",
            "group": "",
            "stain": "",
            "digest": "",
            "reason": one.reason,
        }
        for one in fields.failures
    ]
    return rows


@dataclass(frozen=True, slots=True)
class _Patches:
    """What a network is trained on, what its batch norm is measured on, and what it never sees."""

    training: PatchDataset
    still: PatchDataset
    validation: PatchDataset | None

    @classmethod
    def of(cls, parts: Parts, card: SegmenterCard, config: SegmenterConfig) -> Self:
        n_measured = max(config.batch_size, config.patches_per_epoch // 4)

        def dataset(
            fields: Sequence[Field], n: int, augmentation: OnlineAugmentation | None = None
        ) -> PatchDataset:
            return PatchDataset(fields, card, config, n_patches=n, augmentation=augmentation)

        return cls(
            dataset(parts.training, config.patches_per_epoch, config.augmentation),
            dataset(parts.training, n_measured),
            dataset(parts.held_out, min(n_measured, MAX_VALIDATION)) if parts.held_out else None,
        )

    def all(self) -> list[PatchDataset]:
        return [one for one in (self.training, self.still, self.validation) if one is not None]


def _fit(
    network: nn.Module,
    card: SegmenterCard,
    parts: Parts,
    config: SegmenterConfig,
    accelerator: Accelerator,
    *,
    track: Track,
) -> None:
    """Train, and save the state and the checkpoint after each epoch."""
    device = accelerator.device
    run = config.out
    network = network.to(device).to(memory_format=torch.channels_last)
    state = TrainingState(network, make_optimizer(network, config.optimizer), [])
    if has_state(run / "state"):
        load_state(run / "state", state)
    patches = _Patches.of(parts, card, config)
    epochs = range(len(state.history), config.epochs)
    n_all = len(epochs) * len(_steps(config.patches_per_epoch, config.batch_size))
    progress = track(range(n_all), lambda: progress_text(state.history, config), n_all)
    with BatchLoader(patches.all(), n_workers=config.n_workers) as loader:  # type: ignore[arg-type]

        def batches(dataset: PatchDataset, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            keys = [[ItemKey(n, epoch) for n in s] for s in _steps(len(dataset), config.batch_size)]
            for batch in loader.batches(dataset, keys):  # type: ignore[arg-type]
                images = batch.images.to(device, memory_format=torch.channels_last)
                yield images, batch.labels.to(device)

        for epoch in epochs:
            row = _train_epoch(state, patches, batches, config, accelerator, progress=progress)
            check_finite(row)
            state.history.append(row)
            weights = network.state_dict()
            dated = card.model_copy(update={"epoch": epoch + 1})
            save_segmenter(run / "checkpoint", weights, dated)
            save_state(run / "state", state, weights)
            write_history(state.history, run / "history.csv")
    next(progress, None)  # so that the progress bar displays the last epoch


def _train_epoch(
    state: TrainingState,
    patches: _Patches,
    batches: Callable[[PatchDataset, int], Iterator[tuple[Tensor, Tensor]]],
    config: SegmenterConfig,
    accelerator: Accelerator,
    *,
    progress: Iterator[int],
) -> EpochRow:
    """Train the epoch that follows those of the history, and return its row."""
    start, epoch, network = time.perf_counter(), len(state.history), state.model
    use_bfloat16 = uses_bfloat16(config.precision, accelerator.device, input_size=config.patch_px)
    rate = config.schedule.rate(
        epoch, initial=config.optimizer.learning_rate, n_epochs=config.epochs
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    seed = np.random.SeedSequence((config.seed, epoch)).generate_state(1)[0]
    torch.manual_seed(int(seed))
    network.train()
    losses = [
        _step(state, images, targets, config, use_bfloat16=use_bfloat16)
        for (images, targets), _ in zip(batches(patches.training, epoch), progress, strict=False)
    ]
    remeasure_batch_norm(
        network,
        (images for images, _ in batches(patches.still, VALIDATION_EPOCH)),
        accelerator=accelerator,
        use_bfloat16=use_bfloat16,
    )
    row: EpochRow = {
        "epoch": epoch + 1,
        "learning_rate": rate,
        "train_loss": float(np.mean(losses)),
        "validation_loss": None,
        "validation_dice": None,
        "images_per_second": config.patches_per_epoch / (time.perf_counter() - start),
    }
    if patches.validation is not None:
        row["validation_loss"], row["validation_dice"] = _validate(
            network, batches(patches.validation, VALIDATION_EPOCH), use_bfloat16=use_bfloat16
        )
    return row


def _step(
    state: TrainingState,
    images: Tensor,
    targets: Tensor,
    config: SegmenterConfig,
    *,
    use_bfloat16: bool,
) -> float:
    with autocast(images.device, use_bfloat16=use_bfloat16):
        logits = state.model(images)
    loss = segmentation_loss(logits, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_gradient_norm is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_gradient_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _validate(
    network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], *, use_bfloat16: bool
) -> tuple[float, float]:
    """Return the mean loss, and the mean Dice of the channels that are present."""
    network.eval()
    losses, shared, total, n_true = [], [], [], []
    with torch.inference_mode():
        for images, targets in batches:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=use_bfloat16):
                logits = network(images)
            losses.append(float(segmentation_loss(logits, targets)))
            truth, known = (targets == 1).float(), (targets != UNKNOWN).float()
            both, all_ = soft_counts((logits > 0).float(), truth, known)
            shared.append(both.cpu())
            total.append(all_.cpu())
            n_true.append(truth.sum((0, 2, 3)).cpu())
    is_present = torch.stack(n_true).sum(0) > 0
    dice = 2.0 * torch.stack(shared).sum(0) / torch.stack(total).sum(0).clamp(min=1.0)
    mean = float(dice[is_present].mean()) if is_present.any() else float("nan")
    return float(np.mean(losses)), mean


def _steps(n: int, size: int) -> list[range]:
    """Return the numbers of each batch; a last one of one patch joins the one before."""
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [range(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def _accelerator(config: SegmenterConfig) -> Accelerator:
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            "device = 'cuda' needs an NVIDIA GPU that torch can use, and there is none here; set "
            "device = 'auto' or 'cpu'"
        )
    return Accelerator(cpu=config.device == "cpu" and has_gpu)


def _check_structures(fields: Sequence[Field], structures: tuple[str, ...]) -> None:
    for k, name in enumerate(structures):
        if not any(k in one.anchors for one in fields):
            raise TrainingError(
                f"no training image shows the structure {name!r}; add such images, or leave it out "
                "of structures"
            )


def _check_forward(network: nn.Module, config: SegmenterConfig) -> None:
    """Check that the network takes patches of this size, before a file is written."""
    side = config.patch_px
    try:
        with torch.no_grad():
            shape = network.eval()(torch.zeros(1, 3, side, side)).shape
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"the network with encoder {config.encoder} does not take patches of {side} px "
            f"({first_line}); choose another encoder or patch_px"
        ) from error
    if shape[2:] != (side, side):
        raise ConfigError(
            f"the network with encoder {config.encoder} returns maps of {shape[3]} x {shape[2]} "
            f"for patches of {side} px; choose another encoder"
        )


def _check_run_folder(
    run: Path, config: SegmenterConfig, rows: list[dict[str, str]], *, resume: bool
) -> None:
    """Check that the folder is empty or holds the run to resume."""
    refuse_other_model(run, own=FIELDS_FILE)
    if not (run / "config.toml").is_file():
        return
    if not resume:
        raise OutputError(
            "this folder holds a run already; resume it with --resume, or choose another folder",
            where=str(run),
        )
    then = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    now = segmenter_values(config)
    if changes := changed_settings(then, now, ignore=WITHOUT_EFFECT):
        raise ConfigError(
            f"the run in this folder has other settings ({describe_changes(changes)}); resume it "
            "with the same configuration, or choose another output folder",
            where=str(run / "config.toml"),
        )
    if (run / FIELDS_FILE).read_text(encoding="utf-8") != _csv(rows):
        raise ConfigError(
            "the images or masks have changed since the run began; choose another output folder "
            f"to train on the new ones (the run: {run})",
            where=str(run / FIELDS_FILE),
        )


def _open_run(
    run: Path, config: SegmenterConfig, rows: list[dict[str, str]], *, device: str
) -> None:
    if run.is_dir():
        remove_partial_files(run)
    if (run / "config.toml").is_file():
        return
    make_folder(run)
    with atomic_write(run / FIELDS_FILE) as temporary:
        temporary.write_text(_csv(rows), encoding="utf-8")
    write_json(machine_facts(config.seed, device=device), run / "environment.json")
    write_segmenter_config(config, run / "config.toml")  # last, so that it marks a complete folder


def _csv(rows: list[dict[str, str]]) -> str:
    import pandas as pd

    return str(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def remove_state(run: Path) -> None:
    """Remove what only an incomplete run needs."""
    shutil.rmtree(run / "state", ignore_errors=True)
