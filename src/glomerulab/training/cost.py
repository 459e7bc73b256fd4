"""Measure what a trained network costs, once; kept beside the run."""

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glomerulab.evaluation.comparison import ModelCost
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.runtime.files import atomic_write
from glomerulab.training.config import read_config
from glomerulab.training.environment import processor
from glomerulab.training.precision import Precision, uses_bfloat16

__all__ = ["count_macs", "measure_cost"]

N_ROUNDS = 5
BATCH_SIZE = 16


def measure_cost(run: Path, kept: Path) -> ModelCost:
    """Measure the model of a run folder, or read what was measured before.

    Parameters
    ----------
    run : Path
        Complete.
    kept : Path
        JSON file that keeps the result.

    Returns
    -------
    ModelCost
    """
    if kept.is_file():
        return ModelCost(**json.loads(kept.read_text(encoding="utf-8")))
    model, card = load_checkpoint(run / "checkpoint")
    speeds = pd.read_csv(run / "history.csv")["images_per_second"]
    precision = read_config(run / "config.toml").precision
    cost = ModelCost(
        input_size=card.input_size,
        n_parameters=sum(weight.numel() for weight in model.parameters()),
        n_macs=count_macs(model, card.input_size),
        train_images_per_second=statistics.median(float(speed) for speed in speeds),
        inference_images_per_second=_inference_speed(model, card.input_size, precision=precision),
        n_bytes=sum(path.stat().st_size for path in (run / "checkpoint").glob("*.safetensors")),
        machine=f"{processor()}, {torch.get_num_threads()} threads",
    )
    with atomic_write(kept) as temporary:
        temporary.write_text(json.dumps(asdict(cost), indent=2) + "\n", encoding="utf-8")
    return cost


def count_macs(model: nn.Module, input_size: int) -> int:
    """Return the multiply-accumulate operations of one image: half of torch's count of FLOPs.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    input_size : int
        Height and width, px.

    Returns
    -------
    int
        Of convolutions and matrix products; norms and activations are not counted.
    """
    image = torch.zeros(1, 3, input_size, input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2


def _inference_speed(model: nn.Module, input_size: int, *, precision: Precision) -> float:
    """Return images per second, the best of several batches, on the device training would take."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    in_bfloat16 = uses_bfloat16(precision, device, input_size=input_size)
    model = model.to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(BATCH_SIZE, 3, input_size, input_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
        seconds = [_timed(model, images) for _ in range(1 + N_ROUNDS)]
    return BATCH_SIZE / min(seconds[1:])  # the first warms up


def _timed(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model(images).float().sum().item()  # waits for a GPU
    return time.perf_counter() - start
