"""One training from manifest to run folder; all file access of a training is here."""

import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from glomerulab.cohort.leakage import find_leaks, leaked_targets
from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.cohort.schema import SPLITS
from glomerulab.errors import (
    ConfigError,
    GlomerulabError,
    ImageFileError,
    LeakageError,
    TrainingError,
)
from glomerulab.models.card import Origin
from glomerulab.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from glomerulab.models.hardware import uses_bfloat16
from glomerulab.models.heads import probabilities
from glomerulab.models.layers import find_classifier
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import create_model, find_model
from glomerulab.models.transfer.published import origin_lines
from glomerulab.predictions import predictions_table, write_predictions
from glomerulab.runtime.files import StrPath
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SEAL_FILE, SealedFolder, write_seal
from glomerulab.training.batch_plan import check_shares, smallest_part
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import CropDataset
from glomerulab.training.history import EpochRow, tensorboard_writer, write_history
from glomerulab.training.loop import AfterEpoch, Compute, fit, make_optimizer, predict_logits
from glomerulab.training.network import complete_network
from glomerulab.training.probe import fit_probe
from glomerulab.training.run_folder import check_run_folder, open_run
from glomerulab.training.start import Start, set_start, write_start
from glomerulab.training.state import TrainingState, has_state, load_state, save_state

__all__ = ["initial_network", "train"]

logger = logging.getLogger(__name__)

EpochCallback = Callable[[list[EpochRow]], None]
"""Receives the history after each epoch; an exception ends the training, which can be resumed."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    track: Track = silent,
    echo: Callable[[str], None] = logger.info,
    on_epoch: EpochCallback | None = None,
    features: StrPath | None = None,
) -> Path:
    """Train a model and write its run folder.

    Parameters
    ----------
    resume : bool, default False
        Continue the run in ``config.out``, if there is one.
    echo : callable, optional
        Receives each line for the user, such as which of the given weights were loaded.
    on_epoch : callable, optional
        See `EpochCallback`.
    features : path, optional
        Folder that keeps the features of a probe for other trainings.

    Returns
    -------
    Path
        The run folder: ``config.toml``, ``manifest.csv``, ``environment.json``, ``history.csv``,
        ``start.json``, ``checkpoint/``, ``predictions.csv`` and ``seal.json``; until it is complete
        ``state/``, for resuming.

    Raises
    ------
    TrainingError
        If a part or a class is missing, the loss is not finite, or the memory does not suffice.
    LeakageError
        If a patient, or a copy and its parent, are in two parts, and
        ``config.allow_image_level_split`` is false.
    ConfigError
        If the network or one of its options is unknown, it does not take images of this size or
        batches this small, the device is absent, or a resumed run has other settings.
    ImageFileError
        If an image is missing or unreadable.
    """
    accelerator = _accelerator(config)
    manifest = read_manifest(config.manifest)
    parts = {name: manifest.part(name) for name in SPLITS}
    _check_parts(parts, config)
    config, origin = complete_network(config, parts["train"])
    check_shares(len(parts["train"].table), config, n_processes=accelerator.num_processes)
    warnings = _leakage_warnings(manifest, config, echo)
    model, input_size = _create_model(config, n_classes=len(manifest.taxonomy.label_ids))
    card = _model_card(config, parts["train"], input_size, origin)
    use_bfloat16 = uses_bfloat16(config.precision, accelerator.device, input_size=input_size)
    compute = Compute(accelerator, use_bfloat16)
    run = config.out
    if accelerator.is_main_process:
        check_run_folder(run, config, resume=resume)
    if (run / SEAL_FILE).is_file():  # a resumed run that is complete
        return run
    _check_images(parts, config)
    with _explained_memory_errors(config), torch.random.fork_rng(devices=[]):
        n_smallest = smallest_part(len(parts["train"].table), config)
        _check_forward(
            model,
            config,
            n_classes=len(card.labels),
            input_size=input_size,
            n_smallest=n_smallest,
        )
        training = _dataset(parts["train"], card, config, augmented=True)
        validation = None
        if len(parts["validation"].table):
            validation = _dataset(parts["validation"], card, config)
        is_resumed = has_state(run / "state")
        # Before any file is written, so that unsuitable weights leave no folder behind.
        start = set_start(
            model, config, card, training.without_augmentation(), is_resumed=is_resumed
        )
        if accelerator.is_main_process:
            open_run(
                run,
                config,
                manifest,
                device=str(accelerator.device),
                warnings=warnings,
                origin=origin,
            )
            if not is_resumed:
                write_start(start, run)
                for line in (*start.lines(), *(origin_lines(origin) if origin else ())):
                    echo(line)
        accelerator.wait_for_everyone()
        if config.kind == "probe":
            if accelerator.is_main_process:
                kept = None if features is None else Path(features)
                _fit_probe(model, card, start, parts, config, features=kept, track=track)
            accelerator.wait_for_everyone()
            return run
        _fit(
            model,
            card,
            training,
            validation,
            config,
            compute=compute,
            track=track,
            on_epoch=on_epoch,
        )
        try:
            _predict_all(parts, config, compute, track)
        except GlomerulabError as error:
            raise type(error)(
                f"{error.message}. The training itself is complete: correct this and give --resume "
                "to predict the images and seal the run",
                where=error.where,
            ) from error
    return run


def initial_network(config: TrainConfig, manifest: Manifest) -> tuple[nn.Module, ModelCard, Start]:
    """Build the network of a training with its initial weights, without training it.

    Raises
    ------
    ConfigError
        If the network or one of its options is unknown.
    CheckpointError
        If the weights are missing, or of another network.
    """
    config, origin = complete_network(config, manifest)
    model, input_size = _create_model(config, n_classes=len(manifest.taxonomy.label_ids))
    card = _model_card(config, manifest, input_size, origin)
    start = set_start(model, config, card, _dataset(manifest, card, config), is_resumed=False)
    return model.eval(), card, start


def _fit_probe(
    model: torch.nn.Module,
    card: ModelCard,
    start: Start,
    parts: dict[str, Manifest],
    config: TrainConfig,
    *,
    features: Path | None,
    track: Track,
) -> None:
    """Fit a linear classifier on the frozen network, predict all parts, and seal the run."""
    everything = parts["train"].with_table(pd.concat([part.table for part in parts.values()]))
    probe = fit_probe(model, card, start, everything, config, folder=features, track=track)
    save_checkpoint(config.out / "checkpoint", probe.network.state_dict(), probe.card)
    originals = everything.table["parent_id"].isna().to_numpy(dtype=bool)
    shown = everything.with_table(everything.table[originals])
    _write_predictions(shown, probe.logits[torch.tensor(originals)], probe.card, config.out)


def _fit(
    model: torch.nn.Module,
    card: ModelCard,
    training: CropDataset,
    validation: CropDataset | None,
    config: TrainConfig,
    *,
    compute: Compute,
    track: Track,
    on_epoch: EpochCallback | None,
) -> None:
    """Train, and save the state and the outputs after each epoch."""
    accelerator = compute.accelerator
    model = _on_device(model, accelerator.device)
    optimizer = make_optimizer(model, config.optimizer)
    state = TrainingState(model, optimizer, [])
    if has_state(config.out / "state"):
        load_state(config.out / "state", state)
    state.model, state.optimizer = accelerator.prepare(model, optimizer)
    is_main = accelerator.is_main_process
    recorder = _epoch_recorder(config, model, card, state, on_epoch)
    with recorder if is_main else _no_recorder() as after_epoch:
        fit(
            state,
            training,
            validation,
            config,
            compute,
            after_epoch=after_epoch,
            track=track if is_main else silent,
        )
    accelerator.wait_for_everyone()


@contextmanager
def _no_recorder() -> Iterator[AfterEpoch]:
    yield lambda _state, _is_best: None


@contextmanager
def _epoch_recorder(
    config: TrainConfig,
    model: torch.nn.Module,
    card: ModelCard,
    state: TrainingState,
    on_epoch: EpochCallback | None,
) -> Iterator[AfterEpoch]:
    """Give a function that saves an epoch: checkpoints first, then the state that completes it."""
    run = config.out
    with ExitStack() as stack:
        write_row = None
        if config.tensorboard:
            writer = tensorboard_writer(run / "tensorboard", n_done=len(state.history))
            write_row = stack.enter_context(writer)

        def after_epoch(state: TrainingState, is_best: bool) -> None:
            weights = model.state_dict()
            dated = card.model_copy(update={"epoch": len(state.history)})
            if config.keep == "last":
                save_checkpoint(run / "checkpoint", weights, dated)
            if is_best:
                best = "checkpoint" if config.keep == "best" else "best"
                save_checkpoint(run / best, weights, dated)
            save_state(run / "state", state, weights)
            write_history(state.history, run / "history.csv")
            if write_row is not None:
                write_row(state.history[-1])
            if on_epoch is not None:
                on_epoch(state.history)

        yield after_epoch
    if config.keep == "best":  # until now, only the state has the last weights
        dated = card.model_copy(update={"epoch": len(state.history)})
        save_checkpoint(run / "last", model.state_dict(), dated)


def _predict_all(
    parts: dict[str, Manifest], config: TrainConfig, compute: Compute, track: Track
) -> None:
    """Predict every original image of all parts with the checkpoint, and seal the run."""
    accelerator = compute.accelerator
    model, card = load_checkpoint(SealedFolder(config.out, rewriting=""))  # not sealed yet
    model = _on_device(model, accelerator.device)
    everything = _originals(parts)
    logits = predict_logits(
        model,
        _dataset(everything, card, config),
        config,
        compute,
        track=track if accelerator.is_main_process else silent,
    )
    if accelerator.is_main_process:
        _write_predictions(everything, logits, card, config.out)
    accelerator.wait_for_everyone()


def _originals(parts: dict[str, Manifest]) -> Manifest:
    tables = [part.table[part.table["parent_id"].isna()] for part in parts.values()]
    return parts["train"].with_table(pd.concat(tables))


def _write_predictions(manifest: Manifest, logits: Tensor, card: ModelCard, run: Path) -> None:
    """Write the predictions, and the seal, which marks a complete run."""
    values = probabilities(logits, card.head).numpy()
    write_predictions(
        predictions_table(manifest.table, values, card.taxonomy), run / "predictions.csv"
    )
    write_seal(run)
    shutil.rmtree(run / "state", ignore_errors=True)  # a complete run needs none


def _accelerator(config: TrainConfig) -> Accelerator:
    """Join the processes of a launcher, if there is one."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            "device = 'cuda' needs an NVIDIA GPU that torch can use, and there is none here; set "
            "device = 'auto' or 'cpu'"
        )
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    # accelerate uses several processes on CPUs only with cpu=True.
    return Accelerator(cpu=config.device == "cpu" if has_gpu else n_processes > 1)


def _check_parts(parts: dict[str, Manifest], config: TrainConfig) -> None:
    """Check that the training part has all labels, and that a needed validation part exists."""
    where = str(config.manifest)
    for name in ("train", "validation") if config.needs_validation else ("train",):
        if parts[name].table.empty:
            way_out = " or set keep = 'last' without patience" if name == "validation" else ""
            raise TrainingError(
                f"there is no image in the {name} part; run `glomerulab split` first{way_out}",
                where=where,
            )
    labels = parts["train"].labels()
    absent = [
        label_id
        for label_id, column in zip(parts["train"].taxonomy.label_ids, labels.T, strict=True)
        if not (column == 1).any()
    ]
    if absent:
        raise TrainingError(
            f"no training image shows: {', '.join(absent)}; add such images, split with another "
            "seed, or remove the label from the taxonomy",
            where=where,
        )


def _check_images(parts: dict[str, Manifest], config: TrainConfig) -> None:
    """Check that the images exist, rather than find out after the last epoch."""
    missing = [path for part in parts.values() for path in part.image_paths() if not path.is_file()]
    if missing:
        raise ImageFileError(
            f"{len(missing)} images of the manifest do not exist, the first is {missing[0]}; "
            "correct the paths, or remove their rows",
            where=str(config.manifest),
        )


def _leakage_warnings(
    manifest: Manifest, config: TrainConfig, echo: Callable[[str], None]
) -> list[str]:
    """Return the leaks of a split, if the configuration allows them; print those of targets."""
    leaks = find_leaks(manifest)
    if leaks and not config.allow_image_level_split:
        raise LeakageError(
            f"{leaks[0]}; scores would be too high. Run `glomerulab split --by patient` before "
            "`augment`, or set allow_image_level_split = true to train anyway",
            where=str(config.manifest),
        )
    for part, target in leaked_targets(manifest).items():
        echo(
            f"warning: {target} was taken from the {part} part, so scores on it may be too high; "
            "normalise to training images"
        )
    return leaks


def _create_model(config: TrainConfig, *, n_classes: int) -> tuple[torch.nn.Module, int]:
    """Return the network with random weights, and its input size, px."""
    wanted = config.model
    try:
        input_size = wanted.input_size or find_model(wanted.name).input_size
        model = create_model(
            wanted.name,
            n_classes,
            seed=config.seed,
            dropout=wanted.dropout,
            options=wanted.options,
            input_size=input_size,
        )
        find_classifier(model)  # whose input the calibration reads
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return model, input_size


def _check_forward(
    model: torch.nn.Module,
    config: TrainConfig,
    *,
    n_classes: int,
    input_size: int,
    n_smallest: int,
) -> None:
    """Check that the network takes images of this size, in batches this small."""
    images = torch.zeros(min(n_smallest, 2), 3, input_size, input_size)
    name = config.model.name
    try:
        with torch.no_grad():
            logits = model.eval()(images[:1])
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if isinstance(error, RuntimeError) and _is_out_of_memory(error, str(error)):
            raise
        usual = find_model(name).input_size
        raise ConfigError(
            f"{name} does not take images of {input_size} px ({_first_line(error)}); leave out "
            f"model.input_size for its own {usual} px, or choose another size or network"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, n_classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            f"{name} returns {shape} for an image instead of (1, {n_classes}); change its "
            "model.options, such as global_pool"
        )
    if len(images) > 1:
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(model).train()(images)
    except ValueError as error:
        raise ConfigError(
            f"with batch_size = {config.batch_size} and accumulate = {config.accumulate} a part of "
            f"a batch is one image, whose variance the batch norms of {name} cannot measure at "
            f"{input_size} px; raise batch_size, or lower accumulate"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _model_card(
    config: TrainConfig, training: Manifest, input_size: int, origin: Origin | None
) -> ModelCard:
    mpp = training.table["mpp"].dropna()
    return ModelCard(
        model=config.model.name,
        options=config.model.options,
        head=config.model.head,
        taxonomy_name=training.taxonomy.name,
        labels=training.taxonomy.labels,
        input_size=input_size,
        mean=config.model.mean or IMAGENET_MEAN,
        std=config.model.std or IMAGENET_STD,
        mpp=float(np.median(mpp.to_numpy(dtype=np.float64))) if len(mpp) else None,
        stain_reference=config.stain_reference,
        origin=origin,
    )


def _dataset(
    manifest: Manifest, card: ModelCard, config: TrainConfig, *, augmented: bool = False
) -> CropDataset:
    augmentation = config.augmentation if augmented else None
    return CropDataset(
        manifest,
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
        augment=augmentation,
        two_stain_jitter=augmentation.two_stain_jitter if augmentation else None,
        seed=config.seed,
    )


def _on_device(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a model, with its maps in channels-last layout, which convolutions read faster."""
    return model.to(device).to(memory_format=torch.channels_last)


@contextmanager
def _explained_memory_errors(config: TrainConfig) -> Iterator[None]:
    """Turn out-of-memory errors into errors that name the settings to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch has no class for it on CPUs
        text = _first_line(error)
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error, text):
            raise
        raise TrainingError(
            f"the training ran out of memory with batch_size {config.batch_size} in "
            f"{config.accumulate} part(s): raise accumulate and give --resume; "
            f"or lower model.input_size in another run ({text})"
        ) from error


def _is_out_of_memory(error: RuntimeError, text: str) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        phrase in text
        for phrase in (
            "allocate memory",
            "bad allocation",
            "could not create a memory",
            "can't start new thread",  # no address space for its stack
        )
    )
