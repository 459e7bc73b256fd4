"""Train several models under the same split and budget, and measure what each costs.

Each is a run of its own, so that a comparison that was stopped goes on. Telling the result is the
report's work: it reads run folders.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from glomerulab.errors import ConfigError
from glomerulab.evaluation.comparison import ModelCost
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.config import TrainConfig, read_config
from glomerulab.training.cost import measure_cost
from glomerulab.training.run import train

__all__ = ["CompareConfig", "Compared", "compare", "read_compare_config", "run_config"]

SHARED = ("manifest", "epochs", "model.head", "allow_image_level_split")
"""What must be the same for all: otherwise their scores say nothing about the models."""


class CompareConfig(BaseModel):
    """Which models, and what they share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Path
    """The training configuration that all share; in a file, relative to that file."""
    out: Path
    """In a file, relative to that file."""
    manifest: Path | None = None
    """Instead of the one of `train`."""
    models: dict[str, dict[str, object]] = Field(min_length=2)
    """By name: what is different for it, as dotted keys of the training configuration."""

    @field_validator("models")
    @classmethod
    def _only_the_model_differs(
        cls, models: dict[str, dict[str, object]]
    ) -> dict[str, dict[str, object]]:
        for name, changes in models.items():
            if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
                raise ValueError(f"{name!r} cannot name a folder")
            for key in (*SHARED, "out"):
                if key in changes:
                    raise ValueError(f"{name}: {key} must be the same for all models")
        return models


@dataclass(frozen=True, slots=True)
class Compared:
    """The runs, and what their models cost."""

    runs: Mapping[str, Path]
    costs: Mapping[str, ModelCost]


def read_compare_config(path: Path, overrides: Mapping[str, object] | None = None) -> CompareConfig:
    """Read the configuration of a comparison from TOML, and try every model's changes.

    Parameters
    ----------
    path : Path
    overrides : mapping of str to object, optional
        Replace what the file says; paths in them are relative to the working folder.

    Returns
    -------
    CompareConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, or a key is unknown or has an impossible value.
    """
    where = str(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=where) from error
    for key in ("train", "out", "manifest"):
        if isinstance(data.get(key), str):
            data[key] = str(path.absolute().parent / data[key])
    for key, value in (overrides or {}).items():
        data[key] = str(value.absolute()) if isinstance(value, Path) else value
    try:
        config = CompareConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(first_problem(error), where=where) from error
    for name in config.models:
        run_config(config, name)
    return config


def run_config(config: CompareConfig, name: str) -> TrainConfig:
    """Return the training configuration of one model.

    Parameters
    ----------
    config : CompareConfig
    name : str

    Returns
    -------
    TrainConfig
    """
    manifest = {} if config.manifest is None else {"manifest": config.manifest}
    out = config.out / "runs" / name
    return read_config(config.train, {**config.models[name], **manifest, "out": out})


def compare(config: CompareConfig, *, track: Track = silent) -> Compared:
    """Train what is not trained yet, and measure what is not measured yet.

    Parameters
    ----------
    config : CompareConfig
    track : Track, optional

    Returns
    -------
    Compared
        Runs stand below ``runs/``, costs below ``costs/``.
    """
    make_folder(config.out / "runs")
    make_folder(config.out / "costs")
    runs = {
        name: train(run_config(config, name), resume=True, track=track) for name in config.models
    }
    costs = {
        name: measure_cost(run, config.out / "costs" / f"{name}.json") for name, run in runs.items()
    }
    return Compared(runs, costs)
