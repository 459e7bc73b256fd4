"""The configuration of a training, read from TOML; unknown keys are refused, not ignored."""

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glomerulab.errors import ConfigError
from glomerulab.models.card import Option, Triple
from glomerulab.models.hardware import Precision
from glomerulab.models.registry import HUB_PREFIX, LOCAL_PREFIX, TIMM_PREFIX
from glomerulab.predictions import Head
from glomerulab.runtime.files import atomic_write, read_configuration
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.shipped import shipped_configs
from glomerulab.training.augmentation import OnlineAugmentation

__all__ = ["TrainConfig", "read_config", "write_config"]

PATH_KEYS = ("manifest", "out", "start.weights", "model.name")
IMAGENET = "imagenet"
LOCAL_IMAGENET = "auto"
"""Values of ``start.weights`` that are names, not paths."""

IMPROVED = "improved_seresnet"
"""Networks with common options begin with it."""

Config = TypeVar("Config", bound=BaseModel)


class FrozenConfig(BaseModel):
    """Base of all configurations: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(FrozenConfig):
    """The network and its input."""

    name: str = "improved_seresnet50"
    """See `glomerulab.models.registry.find_model`; or a published network with its weights,
    ``hf-hub:owner/name`` or a local folder (a path with a slash, in a file relative to it)."""
    head: Head = "softmax"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    input_size: int | None = Field(default=None, ge=32)
    """Height and width of the images, px; by default the design size of the network."""
    max_input_size: int | None = Field(default=None, ge=32)
    """Without `input_size`: the input has the size of the usual training image (median of the
    longer sides), from the design size of the network to this."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Options of this network only; of one of timm, the arguments of its constructor."""
    mean: Triple | None = None
    """Of each channel, of values from 0 to 1; by default what the initial weights expect, and
    ImageNet's for random ones."""
    std: Triple | None = None


class StartConfig(FrozenConfig):
    """The initial weights."""

    weights: str | None = None
    """A file of weights, a run folder, a published network (``hf-hub:owner/name`` or its folder),
    ``imagenet``, or ``auto``, which takes ImageNet weights that are on this machine, else random
    ones; by default those of a published network, random for others. In a file, a path relative to
    that file."""
    frozen_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the pretrained parameters, in forward order, that training does not change."""
    partial: bool = False
    """Load what fits of another network's weights, and leave the rest random. Otherwise weights
    with learned tensors that this network lacks are refused."""


class OptimizerConfig(FrozenConfig):
    """The optimiser."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of ``sgd`` only."""


class ProbeConfig(FrozenConfig):
    """Of ``kind = "probe"``: a logistic regression on features of the frozen network."""

    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3), min_length=1
    )
    """Inverse regularisation; the one of the lowest log-loss on held-out patients is taken."""
    n_inner_folds: int = Field(default=5, ge=2)
    n_views: Literal[1, 2, 4, 8] = 1
    """Orientations of each image whose features are averaged."""


class DerivedConfig(FrozenConfig):
    """Base of a search and a comparison: trainings that vary one training configuration."""

    train: Path
    """The training configuration that is varied; in a file, relative to that file. Where no file
    of this name is, the one of this name that the package brings."""
    out: Path
    """In a file, relative to that file."""
    manifest: Path | None = None
    """Instead of the one of `train`."""
    settings: dict[str, object] = {}
    """Changes of `train` for every training, as dotted keys."""

    def training(self, changes: Mapping[str, object], out: Path) -> "TrainConfig":
        """Return the configuration of one training, with changes by dotted key."""
        changes = {**self.settings, **changes}
        manifest = {} if self.manifest is None else {"manifest": self.manifest}
        own = shipped_configs().get(self.train.stem)
        train = own if own is not None and not self.train.exists() else self.train
        return read_config(train, {**changes, **manifest, "out": out})


def cosine_rate(epoch: int, *, initial: float, n_epochs: int, n_warmup: int = 0) -> float:
    """Return a learning rate that rises linearly, then falls along half a cosine.

    References
    ----------
    .. [1] Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    if epoch < n_warmup:
        return initial * (epoch + 1) / (n_warmup + 1)
    done = (epoch - n_warmup) / max(1, n_epochs - n_warmup)
    return initial * 0.5 * (1.0 + math.cos(math.pi * done))


class MultistepSchedule(FrozenConfig):
    r"""A drop at milestones: :math:`lr_0 \\cdot \\gamma^{bisect\\_right(milestones, epoch)}`.

    Eq. (8) of Sun et al., Chinese Journal of Medical Physics 39(10):1313-1320, 2022. From the epoch
    that equals a milestone on, its factor applies.

    Examples
    --------
    >>> schedule = MultistepSchedule(milestones=(60, 120), gamma=0.5)
    >>> [schedule.rate(epoch, initial=1.0, n_epochs=200) for epoch in (59, 60, 120)]
    [1.0, 0.5, 0.25]
    """

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...] = (60, 120, 160)
    gamma: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _check_order(self) -> "MultistepSchedule":
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}")
        return self

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        del n_epochs
        return initial * self.gamma ** bisect_right(self.milestones, epoch)


class CosineSchedule(FrozenConfig):
    """Half a cosine, after a linear rise."""

    kind: Literal["cosine"] = "cosine"
    n_warmup: int = Field(default=0, ge=0)

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return cosine_rate(epoch, initial=initial, n_epochs=n_epochs, n_warmup=self.n_warmup)


class ConstantSchedule(FrozenConfig):
    """The same learning rate throughout."""

    kind: Literal["constant"] = "constant"

    def rate(self, epoch: int, *, initial: float, n_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        del epoch, n_epochs
        return initial


Schedule = Annotated[
    MultistepSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="kind")
]


class TrainConfig(FrozenConfig):
    """One training: from a manifest with a split to a run folder."""

    manifest: Path
    """With a split; in a file, relative to that file."""
    out: Path
    """The run folder; in a file, relative to that file."""
    kind: Literal["network", "probe"] = "network"
    """Train the network, or freeze it and fit a linear classifier on its features."""
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=16, ge=1)
    """Images per optimiser step, of all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """Number of micro-batches that a batch is computed in: less memory, and the same step except
    for batch norm, which sees one micro-batch at a time."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    balance: Literal["none", "weights", "sampling"] = "none"
    """Against class imbalance: ``weights`` in the loss, or ``sampling`` of rare classes."""
    clip_gradient_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; None does not clip."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a lower validation loss; None never stops early."""
    keep: Literal["best", "last"] = "best"
    """The weights in the checkpoint: of the lowest validation loss, or of the last epoch. The other
    ones are kept beside them."""
    precision: Precision = "auto"
    """``auto`` uses bfloat16 where the processor supports it, for images of more than 32 px."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` uses a GPU if there is one."""
    n_workers: int = Field(default=0, ge=0)
    """Processes that load images, per training process."""
    tensorboard: bool = False
    """Also write the history for TensorBoard; needs the extra ``tensorboard``."""
    allow_image_level_split: bool = False
    """Train although patients, or copies and their parents, are in several parts (the paper's
    protocol). The run records a warning. Otherwise it is a `LeakageError`."""
    stain_reference: str | None = None
    """Stain reference of the manifest's images, recorded in the checkpoint."""
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    augmentation: OnlineAugmentation | None = OnlineAugmentation()
    """None (``augmentation = false`` in a file) disables augmentation."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = CosineSchedule()
    probe: ProbeConfig = ProbeConfig()

    @property
    def needs_validation(self) -> bool:
        """Whether the training uses a validation part."""
        return self.kind == "network" and (self.keep == "best" or self.patience is not None)

    @model_validator(mode="after")
    def _check_micro_batches(self) -> "TrainConfig":
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
    """Read the configuration of a training from TOML.

    Parameters
    ----------
    overrides : mapping of str to object, optional
        Replace values of the file; keys are dotted, such as ``optimizer.learning_rate``. Paths in
        them are relative to the working folder.

    Returns
    -------
    TrainConfig
        With ``manifest`` and ``out`` absolute.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, or a key is unknown or has an invalid value; the
        message names the key.

    Notes
    -----
    Where `overrides` name another network, the options of the file's network are left out.
    """
    given = dict(overrides or {})
    if "model.name" in given and path.is_file():
        _, data = read_configuration(path)
        before, now = str(_get(data, "model.name")), str(given["model.name"])
        if before != now and not (before.startswith(IMPROVED) and now.startswith(IMPROVED)):
            given = {"model.options": {}, **given}  # those of the file mean nothing to it
    return read_toml_config(path, TrainConfig, PATH_KEYS, given)


def read_toml_config(
    path: Path,
    kind: type[Config],
    path_keys: Collection[str],
    overrides: Mapping[str, object] | None = None,
) -> Config:
    """Read a configuration of any kind, as `read_config` does; values of `path_keys` are paths."""
    where = str(path)
    # A stem of too many letters for any file is none of them, so that `exists` cannot fail.
    if path.stem in shipped_configs() and not path.exists():
        raise ConfigError(
            f"the configuration does not exist; `glomerulab config {path.stem} > {path.name}` "
            "writes it",
            where=where,
        )
    _, data = read_configuration(path)
    for key in path_keys:
        value = _get(data, key)
        if value is not None:
            _set(data, key, _resolved(key, value, path.absolute().parent), where=where)
    for key, value in (overrides or {}).items():
        _set(data, key, _resolved(key, value, Path.cwd()) if key in path_keys else value)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        # A value of the caller is not blamed on the file.
        is_ours = any(_is_at(key, error.errors()[0]["loc"]) for key in overrides or {})
        raise ConfigError(first_problem(error, kind), where=None if is_ours else where) from error


def _is_at(dotted: str, place: tuple[int | str, ...]) -> bool:
    """Return whether a problem's place lies at a key; names of union members stand between."""
    first, *others = dotted.split(".")
    is_whole = len(place) == 1  # such as an unknown `schedule.kind`, whose place is the schedule
    return bool(place) and place[0] == first and (is_whole or not others or others[-1] in place)


def write_config(config: TrainConfig, path: Path) -> None:
    """Write a configuration with all defaults; `read_config` reads it back equal."""
    data = config.model_dump(mode="json", exclude_none=True)
    if config.augmentation is None:
        data["augmentation"] = False
    with atomic_write(path) as temporary:
        temporary.write_bytes(tomli_w.dumps(data).encode())


def _resolved(key: str, value: object, folder: Path) -> object:
    """Return a value of a path key with its path absolute; names stay as they are."""
    is_name = key == "model.name" and ("/" not in str(value) or str(value).startswith(TIMM_PREFIX))
    return value if is_name else _absolute(value, folder)


def _absolute(value: object, folder: Path) -> object:
    """Return a path as an absolute one, and any other value unchanged."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or value.startswith(HUB_PREFIX):
        return value
    if value in {IMAGENET, LOCAL_IMAGENET}:
        return value
    if value.startswith(LOCAL_PREFIX):
        return LOCAL_PREFIX + str(folder / value.removeprefix(LOCAL_PREFIX))
    return str(folder / value)


def _get(data: object, dotted: str) -> object:
    for name in dotted.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _set(data: dict[str, object], dotted: str, value: object, *, where: str | None = None) -> None:
    *tables, last = dotted.split(".")
    for name in tables:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{name!r} is a value, not a table, so there is no key {dotted!r}", where=where
            )
        data = inner
    data[last] = value
