"""One training from manifest to run folder; everything that touches files is here."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from glomerulab.cohort.dataset import CropDataset
from glomerulab.cohort.leakage import find_leaks
from glomerulab.cohort.manifest import Manifest, read_manifest, write_manifest
from glomerulab.errors import ConfigError, LeakageError, OutputError, TrainingError
from glomerulab.files import make_folder, remove_partial_files, written_whole
from glomerulab.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.registry import create_model, find_model
from glomerulab.predictions import predictions_table, write_predictions
from glomerulab.progress import Track, silent
from glomerulab.run_seal import SEAL_FILE, write_seal
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.environment import has_bfloat16, write_environment
from glomerulab.training.loop import EpochRow, Progress, fit, make_optimizer, predict_logits
from glomerulab.training.state import has_state, load_state, save_state

__all__ = ["train"]

PARTS = ("train", "validation", "test")
MAY_DIFFER_ON_RESUME = {"out", "n_workers"}


def train(config: TrainConfig, *, resume: bool = False, track: Track = silent) -> Path:
    """Train a model and write its run folder.

    Parameters
    ----------
    config : TrainConfig
    resume : bool, default False
        Go on with the run that stands in ``config.out``, if there is one.
    track : Track, optional

    Returns
    -------
    Path
        The run folder: ``config.toml``, ``manifest.csv``, ``environment.json``, ``history.csv``,
        ``checkpoint/``, ``state/`` (for resuming), ``predictions.csv`` and ``seal.json``.

    Raises
    ------
    TrainingError
        If a part or a class is missing, the loss is not finite, or the memory does not suffice.
    LeakageError
        If a patient, or a copy and its parent, stand in two parts, and
        ``config.allow_image_level_split`` is false.
    ConfigError
        If the network does not exist or takes no such option, or a resumed run was configured
        otherwise.
    """
    _refuse_several_processes()
    accelerator = Accelerator()
    manifest = read_manifest(config.manifest)
    parts = {name: _part(manifest, name) for name in PARTS}
    _check_parts(parts, config)
    warnings = _leaks(manifest, config)
    try:
        entry = find_model(config.model.name)
        model = create_model(
            config.model.name, len(manifest.taxonomy.label_ids), seed=config.seed,
            dropout=config.model.dropout, options=config.model.options,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    card = _card(config, parts["train"], config.model.input_size or entry.input_size)
    run = config.out
    if accelerator.is_main_process:
        _open_run(
            run, config, manifest, resume=resume, device=str(accelerator.device), warnings=warnings
        )
    accelerator.wait_for_everyone()
    if (run / SEAL_FILE).is_file():  # only a resumed run that was complete
        return run
    with _clear_memory_errors(config), torch.random.fork_rng(devices=[]):
        _fit(model, parts, card, config, accelerator=accelerator, track=track)
        _predict_all(parts, config, accelerator=accelerator, track=track)
    return run


def _fit(
    model: torch.nn.Module,
    parts: dict[str, Manifest],
    card: ModelCard,
    config: TrainConfig,
    *,
    accelerator: Accelerator,
    track: Track,
) -> None:
    """Train, and after each epoch write what a resumed run, and a reader, needs."""
    model = _on_device(model, accelerator.device)
    optimizer = make_optimizer(model, config.optimizer)
    progress = Progress(model, optimizer, [])
    if has_state(config.out / "state"):
        load_state(config.out / "state", progress)
    progress.model, progress.optimizer = accelerator.prepare(model, optimizer)
    training = _dataset(parts["train"], card, config, augmented=True)
    judged = len(parts["validation"].table) > 0
    validation = _dataset(parts["validation"], card, config) if judged else None

    def after_epoch(progress: Progress, is_best: bool) -> None:
        if not accelerator.is_main_process:
            return
        weights = model.state_dict()
        if is_best or config.keep == "last":
            epoch = len(progress.history)
            save_checkpoint(
                config.out / "checkpoint", weights, card.model_copy(update={"epoch": epoch})
            )
        save_state(config.out / "state", progress, weights)
        _write_history(progress.history, config.out / "history.csv")

    fit(
        progress, training, validation, config, accelerator=accelerator,
        use_bfloat16=_use_bfloat16(config, accelerator.device), after_epoch=after_epoch,
        track=track,
    )  # fmt: skip
    accelerator.wait_for_everyone()


def _predict_all(
    parts: dict[str, Manifest], config: TrainConfig, *, accelerator: Accelerator, track: Track
) -> None:
    """Let the checkpoint judge every original image of all parts."""
    model, card = load_checkpoint(config.out / "checkpoint")
    model = _on_device(model, accelerator.device)
    originals = [part.table[part.table["parent_id"].isna()] for part in parts.values()]
    everything = parts["train"].with_table(pd.concat(originals))
    logits = predict_logits(
        model, _dataset(everything, card, config), config, accelerator=accelerator,
        use_bfloat16=_use_bfloat16(config, accelerator.device), track=track,
    )  # fmt: skip
    if accelerator.is_main_process:
        values = probabilities(logits, card.head).numpy()
        table = predictions_table(everything.table, values, card.taxonomy)
        write_predictions(table, config.out / "predictions.csv")
        write_seal(config.out)  # last: where it stands, the run is complete
    accelerator.wait_for_everyone()


def _refuse_several_processes() -> None:
    """Refuse a launcher's processes: that they train as one does is not proven yet."""  # noqa: DOC501
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if n_processes > 1:
        raise TrainingError(
            f"was started as {n_processes} processes; training takes one for now, start it "
            "without torchrun"
        )


def _part(manifest: Manifest, name: str) -> Manifest:
    inside = (manifest.table["split"] == name).fillna(value=False)
    return manifest.with_table(manifest.table[inside.to_numpy(dtype=bool)])


def _check_parts(parts: dict[str, Manifest], config: TrainConfig) -> None:
    """Refuse a split with nothing to learn from, or nothing to choose by."""  # noqa: DOC501
    where = str(config.manifest)
    for name in ("train", "validation") if config.keep == "best" else ("train",):
        if parts[name].table.empty:
            way_out = " or set keep = 'last'" if name == "validation" else ""
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
    """Return the leaks of a split as warnings, if the configuration allows them."""  # noqa: DOC501
    leaks = find_leaks(manifest)
    if leaks and not config.allow_image_level_split:
        raise LeakageError(
            f"{leaks[0]}; scores would be too high. Run `glomerulab split --by patient` before "
            "`augment`, or set allow_image_level_split = true to train all the same",
            where=str(config.manifest),
        )
    return leaks


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


def _open_run(
    run: Path,
    config: TrainConfig,
    manifest: Manifest,
    *,
    resume: bool,
    device: str,
    warnings: list[str],
) -> None:
    """Make the run folder, or make sure that the one there is this run."""  # noqa: DOC501
    config_path = run / "config.toml"
    if config_path.is_file():
        if not resume:
            raise OutputError(
                "holds a run already; give --resume to go on with it, or another --out",
                where=str(run),
            )
        _refuse_other_config(read_config(config_path), config, where=str(config_path))
        remove_partial_files(run)
        return
    make_folder(run)
    manifest_path = run / "manifest.csv"
    write_manifest(manifest, manifest_path)
    write_environment(
        run / "environment.json", seed=config.seed, manifest_path=config.manifest, device=device,
        warnings=warnings,
    )  # fmt: skip
    write_config(config, config_path)  # last: where it stands, the others do


def _refuse_other_config(stands: TrainConfig, wanted: TrainConfig, *, where: str) -> None:
    old, new = stands.model_dump(mode="json"), wanted.model_dump(mode="json")
    differ = [key for key in new if old[key] != new[key] and key not in MAY_DIFFER_ON_RESUME]
    if differ:
        key = differ[0]
        raise ConfigError(
            f"the run was begun with {key} = {old[key]!r}, now it is {new[key]!r}; resume with the "
            "same configuration, or give another --out",
            where=where,
        )


def _dataset(
    manifest: Manifest, card: ModelCard, config: TrainConfig, *, augmented: bool = False
) -> CropDataset:
    return CropDataset(
        manifest, input_size=card.input_size, mean=card.mean, std=card.std,
        augment=config.augmentation if augmented else None, seed=config.seed,
    )  # fmt: skip


def _use_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision == "auto":
        return has_bfloat16(device)
    return config.precision == "bfloat16"


def _on_device(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a model, its maps laid out channels last, which convolutions read faster."""
    return model.to(device).to(memory_format=torch.channels_last)


def _write_history(history: list[EpochRow], path: Path) -> None:
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


@contextmanager
def _clear_memory_errors(config: TrainConfig) -> Iterator[None]:
    """Say what to lower when the memory does not suffice."""  # noqa: DOC501
    try:
        yield
    except RuntimeError as error:  # torch has a class for it on GPUs, and none on CPUs
        text = str(error).splitlines()[0]
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise TrainingError(
            f"out of memory with batch_size {config.batch_size}: lower it, or model.input_size, "
            f"and give --resume ({text})"
        ) from error
