"""What a training can be told, read from TOML; unknown keys are refused, not ignored."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glomerulab.augment import OnlineAugmentation
from glomerulab.errors import ConfigError
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.predictions import Head
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.messages import first_problem
from glomerulab.training.precision import Precision
from glomerulab.training.schedule import constant_rate, cosine_rate, multistep_rate

__all__ = [
    "IMAGENET",
    "Balance",
    "ConstantSchedule",
    "CosineSchedule",
    "ModelConfig",
    "MultistepSchedule",
    "OptimizerConfig",
    "StartConfig",
    "TrainConfig",
    "Triple",
    "read_config",
    "write_config",
]

PATHS = ("manifest", "out", "start.weights")
IMAGENET = "imagenet"
"""A name of weights, and no path."""

Triple = tuple[float, float, float]
"""One number for each colour channel."""

Balance = Literal["none", "weights", "sampling"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """Which network, and what it is given."""

    name: str = "improved_seresnet50"
    """See `glomerulab.models.registry.find_model`."""
    head: Head = "softmax"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    input_size: int | None = Field(default=None, ge=32)
    """Height and width of the images, px; by default what the network was designed for."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What only this network takes."""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


class StartConfig(_Frozen):
    """What the network begins with."""

    weights: str | None = None
    """A file of weights, a run folder, or ``imagenet``; by default random weights. In a file, a
    path relative to that file."""
    frozen_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the pretrained parameters, in forward order, that training leaves as they are."""


class OptimizerConfig(_Frozen):
    """How weights move."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of ``sgd`` only."""


class MultistepSchedule(_Frozen):
    """Eq. (8) of the paper."""

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...] = (60, 120, 160)
    gamma: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _ascend(self) -> "MultistepSchedule":
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}")
        return self

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        del n_epochs
        return multistep_rate(epoch, initial=initial, milestones=self.milestones, gamma=self.gamma)


class CosineSchedule(_Frozen):
    """Half a cosine, after a linear rise."""

    kind: Literal["cosine"] = "cosine"
    n_warmup: int = Field(default=0, ge=0)

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return cosine_rate(epoch, initial=initial, n_epochs=n_epochs, n_warmup=self.n_warmup)


class ConstantSchedule(_Frozen):
    """The same learning rate throughout."""

    kind: Literal["constant"] = "constant"

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        del n_epochs
        return constant_rate(epoch, initial=initial)


Schedule = Annotated[
    MultistepSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="kind")
]


class TrainConfig(_Frozen):
    """One training: from a manifest with a split to a run folder."""

    manifest: Path
    """With a split; in a file, relative to that file."""
    out: Path
    """The run folder; in a file, relative to that file."""
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=16, ge=1)
    """Images of one step of the weights, of all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """Into how many parts a batch is cut that are computed one after another: less memory, and the
    same step but for batch norm, which sees a part at a time."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    balance: Balance = "none"
    """Against rare classes: ``weights`` in the loss, or ``sampling`` rare images more often."""
    clip_gradient_norm: float | None = Field(default=None, gt=0)
    """Longer gradients are shortened to this; None leaves them."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a lower validation loss; None never does."""
    keep: Literal["best", "last"] = "best"
    """Weights that become the checkpoint: of the lowest validation loss, or of the last epoch. The
    others are kept beside them."""
    precision: Precision = "auto"
    """``auto`` takes bfloat16 where the processor really has it, for images of more than 32 px."""
    n_workers: int = Field(default=0, ge=0)
    """Processes that load images ahead, beside each training process."""
    tensorboard: bool = False
    """Write the history for TensorBoard too; needs the extra ``tensorboard``."""
    allow_image_level_split: bool = False
    """Train although patients, or copies and their parents, stand in several parts: the paper's
    protocol. The run records it as a warning. Otherwise it is a `LeakageError`."""
    stain_reference: str | None = None
    """Written into the checkpoint: what the images of the manifest were normalised to."""
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    augmentation: OnlineAugmentation | None = OnlineAugmentation()
    """None (``augmentation = false`` in a file) shows every image as it is."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = CosineSchedule()

    @model_validator(mode="after")
    def _parts_hold_images(self) -> "TrainConfig":
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate = {self.accumulate} parts of a batch_size of {self.batch_size} would "
                "be empty"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _false_is_none(cls, data: object) -> object:
        # TOML has no null.
        if isinstance(data, dict) and data.get("augmentation") is False:
            return {**data, "augmentation": None}
        return data


def read_config(path: Path, overrides: Mapping[str, object] | None = None) -> TrainConfig:
    """Read a configuration from TOML.

    Parameters
    ----------
    path : Path
    overrides : mapping of str to object, optional
        Replace what the file says; keys are dotted, such as ``optimizer.learning_rate``. Paths in
        them are relative to the working folder.

    Returns
    -------
    TrainConfig
        With ``manifest`` and ``out`` absolute.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, or a key is unknown or has an impossible value; the
        message names the key.
    """
    where = str(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=where) from error
    for key in PATHS:
        value = _get(data, key)
        if value is not None:
            _set(data, key, _absolute(value, path.absolute().parent), where=where)
    for key, value in (overrides or {}).items():
        _set(data, key, _absolute(value, Path.cwd()) if key in PATHS else value, where=where)
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(first_problem(error), where=where) from error


def write_config(config: TrainConfig, path: Path) -> None:
    """Write a configuration with every default filled in; `read_config` reads it back equal.

    Parameters
    ----------
    config : TrainConfig
    path : Path
        Replaced if it exists.
    """
    data = config.model_dump(mode="json", exclude_none=True)
    if config.augmentation is None:
        data["augmentation"] = False
    with atomic_write(path) as temporary:
        temporary.write_bytes(tomli_w.dumps(data).encode())


def _absolute(value: object, folder: Path) -> object:
    """Return a path as an absolute one, and any other value as it is."""
    if isinstance(value, Path):
        value = str(value)
    return str(folder / value) if isinstance(value, str) and value != IMAGENET else value


def _get(data: object, dotted: str) -> object:
    for name in dotted.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _set(data: dict[str, object], dotted: str, value: object, *, where: str) -> None:
    *tables, last = dotted.split(".")
    for name in tables:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted}: {name} is not a table", where=where)
        data = inner
    data[last] = value
