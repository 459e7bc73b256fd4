"""What a search over settings can be told, read from TOML; unknown keys are refused."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glomerulab.errors import ConfigError
from glomerulab.runtime.messages import first_problem
from glomerulab.training.config import TrainConfig, read_config

__all__ = ["Choice", "Range", "SearchConfig", "read_search_config", "trial_config"]

Choice = bool | int | float | str
"""One value of a setting."""

CHANGES_THE_LOSS = ("balance", "model.head")


class Range(BaseModel):
    """All numbers between two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    log: bool = False
    """Whether orders of magnitude are tried equally often."""

    @model_validator(mode="after")
    def _ascends(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"needs low < high, and low > 0 with log, got {self.low}, {self.high}")
        return self


class SearchConfig(BaseModel):
    """A search: what is tried, how often, and by what it is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Path
    """The training configuration that is varied; in a file, relative to that file."""
    out: Path
    """In a file, relative to that file."""
    manifest: Path | None = None
    """Instead of the one of `train`."""
    storage: str | None = None
    """URL of a database that several workers share, such as ``postgresql://…``; by default SQLite
    in `out`."""
    n_trials: int = Field(default=20, ge=1)
    """Of all workers together."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """``grid`` tries every combination once, as far as `n_trials` allows."""
    prune: bool = True
    """Stop a trial that is worse than the median of the others at the same epoch."""
    n_warmup_epochs: int = Field(default=5, ge=0)
    """Epochs before a trial can be stopped."""
    metric: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    seed: int = Field(default=0, ge=0)
    space: dict[str, Range | tuple[Choice, ...]] = Field(min_length=1)
    """Dotted keys of the training configuration: a list of choices, or a range."""

    @model_validator(mode="after")
    def _fits(self) -> "SearchConfig":
        ranges = [key for key, values in self.space.items() if isinstance(values, Range)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"a grid needs lists, and {ranges[0]} is a range")
        for key in {"manifest", "out", "seed"}.intersection(self.space):
            raise ValueError(f"space: {key} cannot be searched")
        for key in CHANGES_THE_LOSS if self.metric == "validation_loss" else ():
            if key in self.space:
                raise ValueError(
                    f"{key} changes what the validation loss is; with it in the space, set "
                    "metric = 'validation_accuracy'"
                )
        return self


def read_search_config(path: Path, overrides: Mapping[str, object] | None = None) -> SearchConfig:
    """Read the configuration of a search from TOML, and try its space on the training's.

    Parameters
    ----------
    path : Path
    overrides : mapping of str to object, optional
        Replace what the file says; paths in them are relative to the working folder.

    Returns
    -------
    SearchConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, a key is unknown, or a value of the space is one that
        the training configuration refuses; the message names it.
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
        config = SearchConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(first_problem(error), where=where) from error
    for key, values in config.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            trial_config(config, {key: value}, config.out)
    return config


def trial_config(config: SearchConfig, values: Mapping[str, object], out: Path) -> TrainConfig:
    """Return the training configuration of one trial.

    Parameters
    ----------
    config : SearchConfig
    values : mapping of str to object
        By dotted key.
    out : Path
        The trial's run folder.

    Returns
    -------
    TrainConfig

    Raises
    ------
    ConfigError
        If the training refuses a value.
    """
    manifest = {} if config.manifest is None else {"manifest": config.manifest}
    return read_config(config.train, {**values, **manifest, "out": out})
