"""One training from manifest to run folder; everything that touches files is here."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from glomerulab.cohort.leakage import find_leaks, target_leak_parts
from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import ConfigError, LeakageError, TrainingError
from glomerulab.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.registry import create_model, find_model
from glomerulab.predictions import predictions_table, write_predictions
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SEAL_FILE, write_seal
from glomerulab.training.batch_plan import refuse_empty_shares
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import CropDataset
from glomerulab.training.history import EpochRow, write_history
from glomerulab.training.loop import AfterEpoch, Progress, fit, make_optimizer, predict_logits
from glomerulab.training.precision import uses_bfloat16
from glomerulab.training.run_folder import open_run, refuse_other_run
from glomerulab.training.start import Echo, set_start, write_start
from glomerulab.training.state import has_state, load_state, save_state
from glomerulab.training.tensorboard import board

__all__ = ["Watch", "train"]

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
Watch = Callable[[list[EpochRow]], None]
"""Takes the history after each epoch; what it raises ends the training, which can be resumed."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    track: Track = silent,
    tell: Echo = logger.info,
    watch: Watch | None = None,
) -> Path:
    """Train a model and write its run folder.

    Parameters
    ----------
    config : TrainConfig
    resume : bool, default False
        Go on with the run that stands in ``config.out``, if there is one.
    track : Track, optional
    tell : callable, optional
        Takes each line that a person should read, such as what of given weights was taken.
    watch : callable, optional
        See `Watch`.

    Returns
    -------
    Path
        The run folder: ``config.toml``, ``manifest.csv``, ``environment.json``, ``history.csv``,
        ``start.json``, ``checkpoint/``, ``state/`` (for resuming), ``predictions.csv`` and
        ``seal.json``.

    Raises
    ------
    TrainingError
        If a part or a class is missing, the loss is not finite, or the memory does not suffice.
    LeakageError
        If a patient, or a copy and its parent, stand in two parts, and
        ``config.allow_image_level_split`` is false.
    ConfigError
        If the network does not exist or takes no such option, the precision is not one for images
        this small, or a resumed run was configured otherwise.
    """
    accelerator = _accelerator()
    manifest = read_manifest(config.manifest)
    parts = {name: _part(manifest, name) for name in PARTS}
    _check_parts(parts, config)
    n_processes = accelerator.num_processes
    refuse_empty_shares(len(parts["train"].table), config, n_processes=n_processes)
    warnings = _leaks(manifest, config)
    for part in target_leak_parts(manifest):
        tell(
            f"WARNING: a stain target was taken from the {part} part: scores on it may be too "
            "high. Normalise to training images"
        )
    model, input_size = _model(config, n_classes=len(manifest.taxonomy.label_ids))
    card = _card(config, parts["train"], input_size)
    use_bfloat16 = uses_bfloat16(config.precision, accelerator.device, input_size=input_size)
    run = config.out
    if accelerator.is_main_process:
        refuse_other_run(run, config, resume=resume)
    if (run / SEAL_FILE).is_file():  # only a resumed run that was complete
        return run
    with _clear_memory_errors(config), torch.random.fork_rng(devices=[]):
        training = _dataset(parts["train"], card, config, augmented=True)
        # Before anything is written: a start that is refused leaves no folder in the way.
        start = set_start(
            model,
            config,
            card,
            training.without_augmentation(),
            is_resumed=has_state(run / "state"),
        )
        if accelerator.is_main_process:
            open_run(run, config, manifest, device=str(accelerator.device), warnings=warnings)
            if not has_state(run / "state"):
                write_start(start, run)
                for line in start.lines():
                    tell(line)
        accelerator.wait_for_everyone()
        _fit(
            model,
            training,
            parts["validation"],
            card,
            config,
            accelerator=accelerator,
            use_bfloat16=use_bfloat16,
            track=track,
            watch=watch,
        )
        _predict_all(parts, config, accelerator=accelerator, use_bfloat16=use_bfloat16, track=track)
    return run


def _fit(
    model: torch.nn.Module,
    training: CropDataset,
    validation_part: Manifest,
    card: ModelCard,
    config: TrainConfig,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
    track: Track,
    watch: Watch | None,
) -> None:
    """Train, and after each epoch write what a resumed run, and a reader, needs."""
    model = _on_device(model, accelerator.device)
    optimizer = make_optimizer(model, config.optimizer)
    progress = Progress(model, optimizer, [])
    if has_state(config.out / "state"):
        load_state(config.out / "state", progress)
    progress.model, progress.optimizer = accelerator.prepare(model, optimizer)
    judged = len(validation_part.table) > 0
    validation = _dataset(validation_part, card, config) if judged else None
    with _recorder(
        config, model, card, progress, accelerator=accelerator, watch=watch
    ) as after_epoch:
        fit(
            progress,
            training,
            validation,
            config,
            accelerator=accelerator,
            use_bfloat16=use_bfloat16,
            after_epoch=after_epoch,
            track=track if accelerator.is_main_process else silent,
        )
    accelerator.wait_for_everyone()


@contextmanager
def _recorder(
    config: TrainConfig,
    model: torch.nn.Module,
    card: ModelCard,
    progress: Progress,
    *,
    accelerator: Accelerator,
    watch: Watch | None,
) -> Iterator[AfterEpoch]:
    """Give what writes an epoch down: checkpoints first, then the state that says it is done."""
    if not accelerator.is_main_process:
        yield lambda _progress, _is_best: None
        return
    run = config.out
    with ExitStack() as stack:
        tell = None
        if config.tensorboard:
            tell = stack.enter_context(board(run / "tensorboard", n_done=len(progress.history)))

        def after_epoch(progress: Progress, is_best: bool) -> None:
            weights = model.state_dict()
            dated = card.model_copy(update={"epoch": len(progress.history)})
            if config.keep == "last":
                save_checkpoint(run / "checkpoint", weights, dated)
            if is_best:
                best = "checkpoint" if config.keep == "best" else "best"
                save_checkpoint(run / best, weights, dated)
            save_state(run / "state", progress, weights)
            write_history(progress.history, run / "history.csv")
            if tell is not None:
                tell(progress.history[-1])
            if watch is not None:
                watch(progress.history)

        yield after_epoch
    if config.keep == "best":  # until now they stood in the state
        dated = card.model_copy(update={"epoch": len(progress.history)})
        save_checkpoint(run / "last", model.state_dict(), dated)


def _predict_all(
    parts: dict[str, Manifest],
    config: TrainConfig,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
    track: Track,
) -> None:
    """Let the checkpoint judge every original image of all parts."""
    model, card = load_checkpoint(config.out / "checkpoint")
    model = _on_device(model, accelerator.device)
    originals = [part.table[part.table["parent_id"].isna()] for part in parts.values()]
    everything = parts["train"].with_table(pd.concat(originals))
    logits = predict_logits(
        model,
        _dataset(everything, card, config),
        config,
        accelerator=accelerator,
        use_bfloat16=use_bfloat16,
        track=track if accelerator.is_main_process else silent,
    )
    if accelerator.is_main_process:
        values = probabilities(logits, card.head).numpy()
        table = predictions_table(everything.table, values, card.taxonomy)
        write_predictions(table, config.out / "predictions.csv")
        write_seal(config.out)  # last: where it stands, the run is complete
    accelerator.wait_for_everyone()


def _accelerator() -> Accelerator:
    """Take part in what a launcher started; alone without one."""
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    # accelerate looks for other processes on CPUs only where it is told that there is no GPU.
    return Accelerator(cpu=n_processes > 1 and not torch.cuda.is_available())


def _part(manifest: Manifest, name: str) -> Manifest:
    inside = (manifest.table["split"] == name).fillna(value=False)
    return manifest.with_table(manifest.table[inside.to_numpy(dtype=bool)])


def _check_parts(parts: dict[str, Manifest], config: TrainConfig) -> None:
    """Refuse a split with nothing to learn from, or nothing to choose by."""
    where = str(config.manifest)
    chosen_by_loss = config.keep == "best" or config.patience is not None
    for name in ("train", "validation") if chosen_by_loss else ("train",):
        if parts[name].table.empty:
            way_out = " or set keep = 'last' without patience" if name == "validation" else ""
            raise TrainingError(
                f"no image in the {name} part; run `glomerulab split` first{way_out}", where=where
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
            "seed, or take the label out of the taxonomy",
            where=where,
        )


def _leaks(manifest: Manifest, config: TrainConfig) -> list[str]:
    """Return the leaks of a split as warnings, if the configuration allows them."""
    leaks = find_leaks(manifest)
    if leaks and not config.allow_image_level_split:
        raise LeakageError(
            f"{leaks[0]}; scores would be too high. Run `glomerulab split --by patient` before "
            "`augment`, or set allow_image_level_split = true to train all the same",
            where=str(config.manifest),
        )
    return leaks


def _model(config: TrainConfig, *, n_classes: int) -> tuple[torch.nn.Module, int]:
    """Make the network with random weights; return also the size of its images, px."""
    told = config.model
    try:
        entry = find_model(told.name)
        model = create_model(
            told.name, n_classes, seed=config.seed, dropout=told.dropout, options=told.options
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return model, told.input_size or entry.input_size


def _card(config: TrainConfig, training: Manifest, input_size: int) -> ModelCard:
    mpp = training.table["mpp"].dropna()
    return ModelCard(
        model=config.model.name,
        options=config.model.options,
        head=config.model.head,
        taxonomy_name=training.taxonomy.name,
        labels=training.taxonomy.labels,
        input_size=input_size,
        mean=config.model.mean,
        std=config.model.std,
        mpp=float(np.median(mpp.to_numpy(dtype=np.float64))) if len(mpp) else None,
        stain_reference=config.stain_reference,
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
    """Move a model, its maps laid out channels last, which convolutions read faster."""
    return model.to(device).to(memory_format=torch.channels_last)


@contextmanager
def _clear_memory_errors(config: TrainConfig) -> Iterator[None]:
    """Say what to lower when the memory does not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch has no class for it on CPUs
        text = (str(error) or "MemoryError").splitlines()[0]
        if isinstance(error, RuntimeError) and not _is_about_memory(error, text):
            raise
        raise TrainingError(
            f"out of memory with batch_size {config.batch_size} in {config.accumulate} part(s): "
            f"raise accumulate and give --resume; or lower model.input_size in another run ({text})"
        ) from error


def _is_about_memory(error: RuntimeError, text: str) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text
        for words in ("allocate memory", "bad allocation", "could not create a memory")
    )
