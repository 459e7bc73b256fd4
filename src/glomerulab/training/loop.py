"""The training loop, readable from top to bottom.

An epoch depends on the seed, its own number, and the state that the last one left. So a run that is
stopped at any moment and resumed ends with the same weights. All random numbers are seeded anew in
each epoch, hence there is no generator to save. On one process accelerate does nothing, and there
is one code path for any number of processes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from glomerulab.models.hardware import autocast
from glomerulab.models.heads import is_correct
from glomerulab.models.layers import freeze_batchnorm_stats
from glomerulab.predictions import Head
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.batch_norm import GlobalBatch, remeasure_batch_norm
from glomerulab.training.batch_plan import plan_epoch, share_of_process, steps_per_epoch
from glomerulab.training.config import OptimizerConfig, TrainConfig
from glomerulab.training.dataset import Batch, BatchLoader, CropDataset, ItemKey, batches
from glomerulab.training.history import (
    EpochRow,
    check_finite,
    is_best,
    is_stale,
    progress_text,
)
from glomerulab.training.losses import known_weight, label_weights, loss_sum
from glomerulab.training.state import TrainingState

MAX_NORM_IMAGES = 1024

AfterEpoch = Callable[[TrainingState, bool], None]
"""Called after each epoch with the state, and whether the epoch is the best so far."""


@dataclass(frozen=True, slots=True)
class Compute:
    """How tensors are computed: on which processes and device, and in which precision."""

    accelerator: Accelerator
    use_bfloat16: bool
    """Whether the forward pass runs under autocast."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass."""
        return autocast(self.accelerator.device, use_bfloat16=self.use_bfloat16)


@dataclass(frozen=True, slots=True)
class EpochSets:
    """The images of an epoch, and what loads them."""

    training: CropDataset
    originals: CropDataset
    """The training images without augmentation."""
    validation: CropDataset | None
    loader: BatchLoader


def fit(
    state: TrainingState,
    training: CropDataset,
    validation: CropDataset | None,
    config: TrainConfig,
    compute: Compute,
    *,
    after_epoch: AfterEpoch,
    track: Track = silent,
) -> None:
    """Train from the epoch that `state` has reached to the last one of `config`."""
    originals = training.without_augmentation()
    datasets = [training, originals, *([] if validation is None else [validation])]
    with BatchLoader(datasets, n_workers=config.n_workers) as loader:
        sets = EpochSets(training, originals, validation, loader)
        _fit_epochs(state, sets, config, compute, after_epoch=after_epoch, track=track)


def _fit_epochs(
    state: TrainingState,
    sets: EpochSets,
    config: TrainConfig,
    compute: Compute,
    *,
    after_epoch: AfterEpoch,
    track: Track,
) -> None:
    training, validation = sets.training, sets.validation
    weights = None
    if config.balance != "none":
        weights = label_weights(training.labels, config.model.head)
    epochs = range(len(state.history), config.epochs)
    n_steps = len(epochs) * steps_per_epoch(len(training), config)
    progress = track(range(n_steps), lambda: progress_text(state.history, config), n_steps)
    for epoch in epochs:
        if is_stale(state.history, config.patience):
            break
        start = time.perf_counter()
        rate = config.schedule.rate(
            epoch, initial=config.optimizer.learning_rate, n_epochs=config.epochs
        )
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        train_loss, train_accuracy = _train_epoch(
            state, sets, config, compute, epoch, weights=weights, progress=progress
        )
        _remeasure_norms(state.model, sets, config, compute, epoch)
        row: EpochRow = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "validation_loss": None,
            "validation_accuracy": None,
            "images_per_second": len(training) / (time.perf_counter() - start),
        }
        if validation is not None:
            row["validation_loss"], row["validation_accuracy"] = _validate(
                state.model, validation, config, compute, weights=weights, loader=sets.loader
            )
        check_finite(row)
        best = is_best(row, state.history)
        state.history.append(row)
        after_epoch(state, best)
    next(progress, None)  # so that the progress bar displays the last epoch


def _train_epoch(
    state: TrainingState,
    sets: EpochSets,
    config: TrainConfig,
    compute: Compute,
    epoch: int,
    *,
    weights: Tensor | None,
    progress: Iterator[int],
) -> tuple[float, float]:
    """Take every step of an epoch; return mean loss and accuracy over the known labels."""
    model, optimizer, head = state.model, state.optimizer, config.model.head
    dataset = sets.training
    accelerator = compute.accelerator
    device, n_processes = accelerator.device, accelerator.num_processes
    torch.manual_seed(_derived_seed(config.seed, epoch, 0))  # for dropout, alike in all processes
    steps = plan_epoch(dataset.labels.numpy(), config, epoch)
    parts = [part for step in steps for part in step]
    loaded = sets.loader.batches(dataset, _own_share(parts, accelerator))
    global_batch = GlobalBatch(process=accelerator.process_index, n_processes=n_processes)
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, known
    weight_of_epoch = 0.0
    model.train()
    freeze_batchnorm_stats(model)
    with global_batch if n_processes > 1 else nullcontext():
        for step in steps:
            rows = [key.row for part in step for key in part]
            weight = float(known_weight(dataset.labels[rows], head, weights=weights))
            weight_of_epoch += weight
            # Gradients are averaged over processes; the loss is the mean over the global batch.
            factor = n_processes / (weight or 1.0)
            for number, part in enumerate(step, start=1):
                global_batch.n_images = len(part)
                images, labels = _on_device(next(loaded), device)
                # Gradients are exchanged once, in the last micro-batch.
                with nullcontext() if number == len(step) else accelerator.no_sync(model):
                    with compute.autocast():
                        logits = model(images)  # (B, K)
                    loss = loss_sum(
                        logits,
                        labels,
                        head,
                        label_smoothing=config.label_smoothing,
                        weights=None if weights is None else weights.to(device),
                    )
                    accelerator.backward(loss * factor)
                totals += _batch_totals(loss.detach(), logits.detach(), labels, head)
            if config.clip_gradient_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            next(progress, None)
    return _means(accelerator.reduce(totals, "sum"), weight_of_epoch)


def _remeasure_norms(
    model: nn.Module, sets: EpochSets, config: TrainConfig, compute: Compute, epoch: int
) -> None:
    """Measure batch norm on training images without augmentation, as in evaluation."""
    accelerator = compute.accelerator
    unbalanced = config.model_copy(update={"balance": "none"})
    steps = plan_epoch(sets.originals.labels.numpy(), unbalanced, epoch)
    parts = [part for step in steps for part in step]
    parts = parts[: max(1, MAX_NORM_IMAGES * config.accumulate // config.batch_size)]
    own = parts[accelerator.process_index :: accelerator.num_processes]  # complete parts
    loaded = sets.loader.batches(sets.originals, own)
    images = (_on_device(batch, accelerator.device)[0] for batch in loaded)
    remeasure_batch_norm(
        accelerator.unwrap_model(model),
        images,
        accelerator=accelerator,
        use_bfloat16=compute.use_bfloat16,
    )


def _validate(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    compute: Compute,
    *,
    weights: Tensor | None,
    loader: BatchLoader,
) -> tuple[float, float]:
    """Return mean loss (without smoothing) and accuracy over the images with known labels."""
    logits = predict_logits(model, dataset, config, compute, loader=loader)
    head, labels = config.model.head, dataset.labels
    total = loss_sum(logits, labels, head, weights=weights)
    weight = float(known_weight(labels, head, weights=weights))
    return _means(_batch_totals(total, logits, labels, head), weight)


def predict_logits(
    model: nn.Module,
    dataset: CropDataset,
    config: TrainConfig,
    compute: Compute,
    *,
    loader: BatchLoader | None = None,
    track: Track = silent,
) -> Tensor:
    """Return the logits of every image, float32, shape (N, K), on the CPU of every process.

    Without `loader`, the images are loaded by processes of their own.
    """
    accelerator = compute.accelerator
    # Unwrapped, since the wrapper would wait for processes that have no image left.
    model = accelerator.unwrap_model(model).eval()
    size = config.batch_size
    rows = range(len(dataset))
    keys = [[ItemKey(row, 0) for row in rows[at : at + size]] for at in rows[::size]]
    own: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        shares = [share for share in _own_share(keys, accelerator) if share]
        loaded = (
            batches(dataset, shares, n_workers=config.n_workers)
            if loader is None
            else loader.batches(dataset, shares)
        )
        for batch in track(loaded, "Predicting", len(shares)):
            images, _ = _on_device(batch, accelerator.device)
            with compute.autocast():
                own.append((batch.rows, model(images).float().cpu()))
    logits = torch.empty(len(dataset), dataset.labels.shape[1])
    for some_rows, some_logits in gather_object(own):
        logits[some_rows] = some_logits
    return logits


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimiser over all weights that are trained."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=config.momentum)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(weights, lr=rate, weight_decay=decay)


def _own_share(keys: Sequence[list[ItemKey]], accelerator: Accelerator) -> list[list[ItemKey]]:
    return share_of_process(
        keys, process=accelerator.process_index, n_processes=accelerator.num_processes
    )


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, batch.labels.to(device, non_blocking=True)


def _batch_totals(loss: Tensor, logits: Tensor, labels: Tensor, head: Head) -> Tensor:
    """Return the summed loss and the numbers of correct and of known labels."""
    correct, known = is_correct(logits, labels, head)
    return torch.stack([loss, (correct & known).sum(), known.sum()]).double()


def _means(totals: Tensor, weight: float) -> tuple[float, float]:
    loss, n_correct, n_known = totals.tolist()
    return loss / (weight or 1.0), n_correct / max(n_known, 1.0)
