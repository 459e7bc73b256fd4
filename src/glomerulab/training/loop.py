"""The training itself, to be read from top to bottom.

An epoch depends on the seed, its own number, and the state the last one left; so a run that is
stopped anywhere and resumed ends with the same weights. What is drawn at random is seeded anew in
each epoch, hence there is no generator to save. On one process accelerate does nothing, and there
is one code path for any number of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from glomerulab.models.heads import is_correct
from glomerulab.models.layers import freeze_batchnorm_stats
from glomerulab.predictions import Head
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.balance import label_weights
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.batch_plan import deal_epoch, own_share, steps_per_epoch
from glomerulab.training.config import OptimizerConfig, TrainConfig
from glomerulab.training.dataset import Batch, CropDataset, ItemKey, batches
from glomerulab.training.global_batch import GlobalBatch
from glomerulab.training.history import (
    EpochRow,
    is_best,
    is_stale,
    progress_text,
    refuse_not_finite,
)
from glomerulab.training.losses import known_weight, loss_sum

__all__ = ["AfterEpoch", "Progress", "fit", "make_optimizer", "predict_logits"]

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
        Where it has a ``patience``, training may end before the last epoch.
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
    weights = None
    if config.balance != "none":
        weights = label_weights(training.labels, config.model.head)
    epochs = range(len(progress.history), config.epochs)
    n_steps = len(epochs) * steps_per_epoch(len(training), config)
    ticks = track(range(n_steps), lambda: progress_text(progress.history, config), n_steps)
    for epoch in epochs:
        if is_stale(progress.history, config.patience):
            break
        row = _learn(
            progress,
            training,
            config,
            epoch,
            weights=weights,
            accelerator=accelerator,
            use_bfloat16=use_bfloat16,
            ticks=ticks,
        )
        if validation is not None:
            row["validation_loss"], row["validation_accuracy"] = _validate(
                progress.model,
                validation,
                config,
                weights=weights,
                accelerator=accelerator,
                use_bfloat16=use_bfloat16,
            )
        refuse_not_finite(row)
        best = is_best(row, progress.history)
        progress.history.append(row)
        after_epoch(progress, best)
    next(ticks, None)  # lets the last line be told


def _learn(
    progress: Progress,
    training: CropDataset,
    config: TrainConfig,
    epoch: int,
    *,
    weights: Tensor | None,
    accelerator: Accelerator,
    use_bfloat16: bool,
    ticks: Iterator[int],
) -> EpochRow:
    """Train for an epoch at its own rate, and measure batch norm on what came of it."""
    start = time.perf_counter()
    rate = config.schedule.rate(
        epoch, initial=config.optimizer.learning_rate, n_epochs=config.epochs
    )
    for group in progress.optimizer.param_groups:
        group["lr"] = rate
    loss, accuracy = _train_epoch(
        progress,
        training,
        config,
        epoch,
        weights=weights,
        accelerator=accelerator,
        use_bfloat16=use_bfloat16,
        ticks=ticks,
    )
    _remeasure_norms(
        progress.model, training, config, epoch, accelerator=accelerator, use_bfloat16=use_bfloat16
    )
    return {
        "epoch": epoch + 1,
        "learning_rate": rate,
        "train_loss": loss,
        "train_accuracy": accuracy,
        "validation_loss": None,
        "validation_accuracy": None,
        "images_per_second": len(training) / (time.perf_counter() - start),
    }


def _train_epoch(
    progress: Progress,
    dataset: CropDataset,
    config: TrainConfig,
    epoch: int,
    *,
    weights: Tensor | None,
    accelerator: Accelerator,
    use_bfloat16: bool,
    ticks: Iterator[int],
) -> tuple[float, float]:
    """Take every step of an epoch; return mean loss and accuracy over the known labels."""
    model, optimizer, device, head = (
        progress.model,
        progress.optimizer,
        accelerator.device,
        config.model.head,
    )
    torch.manual_seed(_derived_seed(config.seed, epoch, 0))  # for dropout, alike everywhere
    steps = deal_epoch(dataset.labels.numpy(), config, epoch)
    parts = [part for step in steps for part in step]
    loaded = iter(batches(dataset, _own(parts, accelerator), n_workers=config.n_workers))
    whole = GlobalBatch(process=accelerator.process_index, n_processes=accelerator.num_processes)
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, right, known
    weight_of_epoch = 0.0
    model.train()
    freeze_batchnorm_stats(model)
    with whole if accelerator.num_processes > 1 else nullcontext():
        for step in steps:
            places = [key.place for part in step for key in part]
            weight = float(known_weight(dataset.labels[places], head, weights=weights))
            weight_of_epoch += weight
            # Gradients are averaged over processes; the loss is one over the whole batch.
            factor = accelerator.num_processes / (weight or 1.0)
            for number, part in enumerate(step, start=1):
                whole.n_images = len(part)
                images, labels = _on_device(next(loaded), device)
                together = nullcontext() if number == len(step) else accelerator.no_sync(model)
                with together:
                    with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
                        logits = model(images)  # (B, K)
                    loss = loss_sum(
                        logits,
                        labels,
                        head,
                        label_smoothing=config.label_smoothing,
                        weights=None if weights is None else weights.to(device),
                    )
                    accelerator.backward(loss * factor)
                sums += _sums(loss.detach(), logits.detach(), labels, head)
            if config.clip_gradient_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            next(ticks, None)
    return _means(accelerator.reduce(sums, "sum"), weight_of_epoch)


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
    as_they_come = config.model_copy(update={"balance": "none"})
    steps = deal_epoch(dataset.labels.numpy(), as_they_come, epoch)
    parts = [part for step in steps for part in step]
    parts = parts[: max(1, MAX_NORM_IMAGES * config.accumulate // config.batch_size)]
    own = parts[accelerator.process_index :: accelerator.num_processes]  # whole parts
    loaded = batches(plain, own, n_workers=config.n_workers)
    images = (_on_device(batch, accelerator.device)[0] for batch in loaded)
    remeasure_batch_norm(
        accelerator.unwrap_model(model), images, accelerator=accelerator, use_bfloat16=use_bfloat16
    )


def _validate(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    *,
    weights: Tensor | None,
    accelerator: Accelerator,
    use_bfloat16: bool,
) -> tuple[float, float]:
    """Return mean loss (without smoothing) and accuracy over the images with known labels."""
    logits = predict_logits(
        model, dataset, config, accelerator=accelerator, use_bfloat16=use_bfloat16
    )
    head, labels = config.model.head, dataset.labels
    total = loss_sum(logits, labels, head, weights=weights)
    weight = float(known_weight(labels, head, weights=weights))
    return _means(_sums(total, logits, labels, head), weight)


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
    # Unwrapped: what wraps it would wait for processes that have no image left.
    model = accelerator.unwrap_model(model).eval()
    size = config.batch_size
    places = range(len(dataset))
    keys = [[ItemKey(p, 0) for p in places[at : at + size]] for at in places[::size]]
    own: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        shares = [share for share in _own(keys, accelerator) if share]
        loaded = batches(dataset, shares, n_workers=config.n_workers)
        for batch in track(loaded, "Predicting", len(shares)):
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


def _own(keys: Sequence[list[ItemKey]], accelerator: Accelerator) -> list[list[ItemKey]]:
    return own_share(keys, process=accelerator.process_index, n_processes=accelerator.num_processes)


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, batch.labels.to(device, non_blocking=True)


def _sums(total: Tensor, logits: Tensor, labels: Tensor, head: Head) -> Tensor:
    right, known = is_correct(logits, labels, head)
    return torch.stack([total, (right & known).sum(), known.sum()]).double()


def _means(sums: Tensor, weight: float) -> tuple[float, float]:
    total, n_right, n_known = sums.tolist()
    return total / (weight or 1.0), n_right / max(n_known, 1.0)
