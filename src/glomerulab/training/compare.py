"""Train several models on the same split and budget, and measure the cost of each.

Each model has a run folder, so that a comparison that was stopped continues. The report
(`glomerulab.reports.run.comparison`) reads the run folders.
"""

import json
import math
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glomerulab.errors import RunError
from glomerulab.evaluation.comparison import ModelCost
from glomerulab.evaluation.run_tables import read_history
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.hardware import Precision, processor_name, uses_bfloat16
from glomerulab.runtime.files import atomic_write, make_folder, read_json
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.config import DerivedConfig, TrainConfig, read_config, read_toml_config
from glomerulab.training.run import train

__all__ = [
    "CompareConfig",
    "TrainedModels",
    "compare",
    "measure_cost",
    "read_compare_config",
    "run_config",
]

SHARED = ("manifest", "epochs", "model.head", "allow_image_level_split")
"""Settings that must be equal for all models: otherwise their scores are not comparable."""
N_ROUNDS = 5
BATCH_SIZE = 16
RATE = "train_images_per_second"
"""Not known for a probe, which has no epochs."""


class CompareConfig(DerivedConfig):
    """The models of a comparison, and their common settings."""

    models: dict[str, dict[str, object]] = Field(min_length=2)
    """Changes of each model by its name, as dotted keys of the training configuration."""

    @field_validator("models")
    @classmethod
    def _check_changes(cls, models: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        for name, changes in models.items():
            if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
                raise ValueError(f"{name!r} cannot name a folder")
            for key in (*SHARED, "out"):
                if key in changes:
                    raise ValueError(f"{name}: {key} must be the same for all models")
        return models


@dataclass(frozen=True, slots=True)
class TrainedModels:
    """The run folders of a comparison, and the costs of their models, by name."""

    runs: Mapping[str, Path]
    costs: Mapping[str, ModelCost]


def read_compare_config(path: Path, overrides: Mapping[str, object] | None = None) -> CompareConfig:
    """Read the configuration of a comparison from TOML, and check the changes of every model.

    Parameters
    ----------
    overrides : mapping of str to object, optional
        Replace values of the file; paths in them are relative to the working folder.

    Returns
    -------
    CompareConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, or a key is unknown or has an invalid value.
    """
    config = read_toml_config(path, CompareConfig, ("train", "out", "manifest"), overrides)
    for name in config.models:
        run_config(config, name)
    return config


def run_config(config: CompareConfig, name: str) -> TrainConfig:
    """Return the training configuration of one model."""
    return config.training(config.models[name], config.out / "runs" / name)


def compare(config: CompareConfig, *, track: Track = silent) -> TrainedModels:
    """Train and measure the models that are not done yet, below ``runs/`` and ``costs/``."""
    make_folder(config.out / "runs")
    make_folder(config.out / "costs")
    runs = {
        name: train(run_config(config, name), resume=True, track=track) for name in config.models
    }
    costs = {
        name: measure_cost(run, config.out / "costs" / f"{name}.json") for name, run in runs.items()
    }
    return TrainedModels(runs, costs)


def measure_cost(run: Path, cache: Path) -> ModelCost:
    """Measure the model of a complete run folder, or read a previous measurement from `cache`."""
    if cache.is_file():
        try:
            facts = read_json(cache, "measured cost", error=RunError)
            if isinstance(facts, dict) and facts.get(RATE) is None:  # JSON has no NaN
                facts[RATE] = math.nan
            return ModelCost(**facts)
        except TypeError as error:
            raise RunError(
                "the measured cost is damaged; delete the file to measure it again",
                where=str(cache),
            ) from error
    model, card = load_checkpoint(run / "checkpoint")
    history = read_history(run / "history.csv")  # a probe has none
    speeds = history.get("images_per_second", [math.nan])
    precision = read_config(run / "config.toml").precision
    cost = ModelCost(
        input_size=card.input_size,
        n_parameters=sum(weight.numel() for weight in model.parameters()),
        n_macs=count_macs(model, card.input_size),
        train_images_per_second=statistics.median(float(speed) for speed in speeds),
        inference_images_per_second=_inference_speed(model, card.input_size, precision=precision),
        n_bytes=sum(path.stat().st_size for path in (run / "checkpoint").glob("*.safetensors")),
        machine=f"{processor_name()}, {torch.get_num_threads()} threads",
    )
    facts = asdict(cost)
    if math.isnan(cost.train_images_per_second):
        facts[RATE] = None
    with atomic_write(cache) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return cost


def count_macs(model: nn.Module, input_size: int) -> int:
    """Return the multiply-accumulate operations of one image: half of torch's count of FLOPs.

    Convolutions and matrix products only, without norms and activations.
    """
    image = torch.zeros(1, 3, input_size, input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2


def _inference_speed(model: nn.Module, input_size: int, *, precision: Precision) -> float:
    """Return images per second, the best of several batches, on the device of a training."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    in_bfloat16 = uses_bfloat16(precision, device, input_size=input_size)
    model = model.to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(BATCH_SIZE, 3, input_size, input_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
        seconds = [_seconds_of_batch(model, images) for _ in range(1 + N_ROUNDS)]
    return BATCH_SIZE / min(seconds[1:])  # the first is a warm-up


def _seconds_of_batch(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model(images).float().sum().item()  # waits for a GPU
    return time.perf_counter() - start
