"""The training itself, to be read from top to bottom.

An epoch depends on the seed, its own number, and the state the last one left; so a run that is
stopped anywhere and resumed ends with the same weights. What is drawn at random is seeded anew in
each epoch, hence there is no generator to save. On one process accelerate does nothing, and there
is one code path for any number of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from glomerulab.cohort.dataset import Batch, CropDataset, ItemKey, batches
from glomerulab.errors import TrainingError
from glomerulab.models.heads import agrees
from glomerulab.predictions import Head
from glomerulab.progress import Track, silent
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.config import OptimizerConfig, TrainConfig
from glomerulab.training.losses import loss_sum

__all__ = ["EpochRow", "Progress", "fit", "make_optimizer", "predict_logits"]

EpochRow = dict[str, float | None]
"""One row of ``history.csv``."""

MAX_NORM_IMAGES = 1024

AfterEpoch = Callable[["Progress", bool], None]
"""Called after each epoch with what stands, and whether it is the best so far."""


@dataclass(slots=True)
class Progress:
    """All that an epoch hands on to the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: list[EpochRow]


def fit(
    progress: Progress,
    training: CropDataset,
    validation: CropDataset | None,
    config: TrainConfig,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
    after_epoch: AfterEpoch,
    track: Track = silent,
) -> None:
    """Train from the epoch that `progress` has reached to the last one of `config`.

    Parameters
    ----------
    progress : Progress
        Changed in place. Model and optimiser are prepared by `accelerator`.
    training : CropDataset
    validation : CropDataset or None
        Judged after each epoch.
    config : TrainConfig
    accelerator : Accelerator
    use_bfloat16 : bool
        Whether the forward pass runs under autocast.
    after_epoch : callable
        See `AfterEpoch`; it writes what must outlive the process.
    track : Track, optional

    Raises
    ------
    TrainingError
        If a loss is NaN or infinite; nothing of that epoch is written.
    """
    n_done = len(progress.history)
    for epoch in track(range(n_done, config.epochs), "Training", config.epochs - n_done):
        start = time.perf_counter()
        rate = config.schedule.rate(
            epoch, initial=config.optimizer.learning_rate, n_epochs=config.epochs
        )
        for group in progress.optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy = _train_epoch(
            progress, training, config, epoch, accelerator=accelerator, use_bfloat16=use_bfloat16
        )
        _remeasure_norms(
            progress.model, training, config, epoch, accelerator=accelerator,
            use_bfloat16=use_bfloat16,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        row: EpochRow = {
            "epoch": epoch + 1, "learning_rate": rate, "train_loss": loss,
            "train_accuracy": accuracy, "validation_loss": None, "validation_accuracy": None,
            "images_per_second": len(training) / seconds,
        }  # fmt: skip
        if validation is not None:
            row["validation_loss"], row["validation_accuracy"] = _validate(
                progress.model, validation, config, accelerator, use_bfloat16=use_bfloat16
            )
        _refuse_not_finite(row)
        is_best = _is_best(row, progress.history)
        progress.history.append(row)
        after_epoch(progress, is_best)


def _train_epoch(
    progress: Progress,
    dataset: CropDataset,
    config: TrainConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
) -> tuple[float, float]:
    """Show every image once; return mean loss and accuracy over the images with known labels."""
    model, optimizer, device = progress.model, progress.optimizer, accelerator.device
    torch.manual_seed(_derived_seed(config.seed, epoch, accelerator.process_index))  # for dropout
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, its count, right, known
    model.train()
    keys = _own_share(_shuffled_batches(len(dataset), config, epoch), accelerator)
    for batch in batches(dataset, keys, n_workers=config.n_workers):
        images, labels = _on_device(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
            logits = model(images)  # (B, K)
        total, count = loss_sum(
            logits, labels, config.model.head, label_smoothing=config.label_smoothing
        )
        # The gradient is averaged over processes: scale so that the mean is over the whole batch.
        n_known = accelerator.reduce(count.detach(), "sum").clamp(min=1.0)
        accelerator.backward(total * accelerator.num_processes / n_known)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums += _sums(total.detach(), count, logits.detach(), labels, config.model.head)
    return _means(accelerator.reduce(sums, "sum"))


def _remeasure_norms(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
) -> None:
    """Measure batch norm on training images as they will be judged: not augmented."""
    plain = dataset.without_augmentation()
    keys = _shuffled_batches(len(dataset), config, epoch)
    keys = keys[: max(1, MAX_NORM_IMAGES // config.batch_size)]
    own = keys[accelerator.process_index :: accelerator.num_processes]  # whole batches
    loaded = batches(plain, own, n_workers=config.n_workers)
    images = (_on_device(batch, accelerator.device)[0] for batch in loaded)
    remeasure_batch_norm(
        accelerator.unwrap_model(model), images, accelerator=accelerator, use_bfloat16=use_bfloat16
    )


def _validate(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    use_bfloat16: bool,
) -> tuple[float, float]:
    """Return mean loss (without smoothing) and accuracy over the images with known labels."""
    logits = predict_logits(
        model, dataset, config, accelerator=accelerator, use_bfloat16=use_bfloat16
    )
    total, count = loss_sum(logits, dataset.labels, config.model.head)
    return _means(_sums(total, count, logits, dataset.labels, config.model.head))


def predict_logits(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    *,
    accelerator: Accelerator,
    use_bfloat16: bool,
    track: Track = silent,
) -> Tensor:
    """Return the logits of every image, float32, shape (N, K), on the CPU of every process.

    Parameters
    ----------
    model : Module
    dataset : CropDataset
    config : TrainConfig
    accelerator : Accelerator
    use_bfloat16 : bool
    track : Track, optional

    Returns
    -------
    Tensor
    """
    model.eval()
    size = config.batch_size
    places = range(len(dataset))
    keys = [[ItemKey(p, 0) for p in places[at : at + size]] for at in places[::size]]
    own: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        loaded = batches(dataset, _own_share(keys, accelerator), n_workers=config.n_workers)
        for batch in track(loaded, "Predicting", len(keys)):
            images, _ = _on_device(batch, accelerator.device)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=use_bfloat16):
                own.append((batch.places, model(images).float().cpu()))
    logits = torch.empty(len(dataset), dataset.labels.shape[1])
    for some_places, some_logits in gather_object(own):
        logits[some_places] = some_logits
    return logits


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimiser of a configuration over all weights that are to be trained.

    Parameters
    ----------
    model : Module
    config : OptimizerConfig

    Returns
    -------
    Optimizer
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=config.momentum)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(weights, lr=rate, weight_decay=decay)


def _shuffled_batches(n_images: int, config: TrainConfig, epoch: int) -> list[list[ItemKey]]:
    """Deal all images into batches of nearly equal size, so that none is left over or tiny."""
    order = np.random.default_rng((config.seed, epoch)).permutation(n_images)
    n_batches = -(-n_images // config.batch_size)
    parts = np.array_split(order, n_batches)
    return [[ItemKey(int(place), epoch) for place in part] for part in parts]


def _own_share(keys: Sequence[list[ItemKey]], accelerator: Accelerator) -> list[list[ItemKey]]:
    """Return this process's part of every batch."""
    return [batch[accelerator.process_index :: accelerator.num_processes] for batch in keys]


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, batch.labels.to(device, non_blocking=True)


def _sums(total: Tensor, count: Tensor, logits: Tensor, labels: Tensor, head: Head) -> Tensor:
    right, known = agrees(logits, labels, head)
    return torch.stack([total, count, (right & known).sum(), known.sum()]).double()


def _means(sums: Tensor) -> tuple[float, float]:
    total, count, n_right, n_known = sums.tolist()
    return total / max(count, 1.0), n_right / max(n_known, 1.0)


def _is_best(row: EpochRow, earlier: Sequence[EpochRow]) -> bool:
    loss = row["validation_loss"]
    if loss is None:
        return False
    return all(
        other["validation_loss"] is None or loss < other["validation_loss"] for other in earlier
    )


def _refuse_not_finite(row: EpochRow) -> None:
    for name in ("train_loss", "validation_loss"):
        value = row[name]
        if value is not None and not np.isfinite(value):
            raise TrainingError(
                f"{name} is {value} in epoch {row['epoch']}; nothing of this epoch was kept. "
                "Lower optimizer.learning_rate, or set precision = 'float32'"
            )
