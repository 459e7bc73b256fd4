"""The configuration of a segmenter's training, read from TOML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BeforeValidator, Field, model_validator

from glomerulab.cohort.schema import STAINS
from glomerulab.errors import ConfigError
from glomerulab.models.card import Triple
from glomerulab.models.hardware import Precision
from glomerulab.runtime.files import atomic_write
from glomerulab.structures.classes import KNOWN_STRUCTURES, in_drawing_order, structure
from glomerulab.training.augmentation import OnlineAugmentation
from glomerulab.training.config import (
    CosineSchedule,
    FrozenConfig,
    OptimizerConfig,
    Schedule,
    read_toml_config,
)
from glomerulab.training.segmentation.masks import IGNORE, Values

__all__ = [
    "SegmenterConfig",
    "SetConfig",
    "read_segmenter_config",
    "segmenter_values",
    "write_segmenter_config",
]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""One name or several."""


class SetConfig(FrozenConfig):
    """Images of one kind, with masks of one kind."""

    name: str = ""
    """In messages and tables; by default the name of the images' folder."""
    images: Path
    """A folder of images, a table (CSV) with the column ``image``, or slides: a slide, a folder of
    slides, or a slides table."""
    where: dict[str, Names] = Field(default_factory=dict)
    """Rows of the table that are taken, such as ``class = "artery"``."""
    masks: Path | None = None
    """A folder with a mask or a region file named after each image, or one region file for all;
    by default the column ``mask`` of the table."""
    mask_suffix: str = ""
    """What the names of masks have after those of images, such as ``_mask``."""
    values: dict[str, Names] = Field(default_factory=dict)
    """Masks are label images: structures of each value, or of each colour as ``"#rrggbb"``."""
    folders: dict[str, Path] = Field(default_factory=dict)
    """Masks are one image per structure: a folder for each, relative to `masks`."""
    classes: dict[str, Names] = Field(default_factory=dict)
    """Masks are outlines: structures of each class of the region files. Without `values`, `folders`
    and `classes`, they are outlines whose classes are ids or names of known structures."""
    knows: tuple[str, ...] = ()
    """Structures that are marked wherever they are. Of others, unmarked pixels are ignored."""
    mpp: float | None = Field(default=None, gt=0)
    """Micrometres per pixel of the images; by default that of the table or the slide."""
    stain: str | None = None
    """Of all images; by default that of the table."""
    group: str | None = None
    """Column of the table whose images stay together, such as ``patient_id``; by default that of
    slides, and each image by itself."""

    @model_validator(mode="after")
    def _check_kind(self) -> "SetConfig":
        kinds = [name for name in ("values", "folders", "classes") if getattr(self, name)]
        if len(kinds) > 1:
            raise ValueError(
                "a set has one of values (label images), folders (one mask per structure) and "
                f"classes (outlines), got {' and '.join(kinds)}"
            )
        if self.stain is not None and self.stain not in STAINS:
            raise ValueError(f"unknown stain {self.stain!r} (known: {', '.join(STAINS)})")
        marked = {name for names in self.meanings() for name in names} - {IGNORE}
        if not marked | set(self.knows):
            raise ValueError("the set marks no structure")
        self.numbered_values()
        return self

    def meanings(self) -> list[tuple[str, ...]]:
        """Return the structures of each value, folder or class."""
        return [
            *self.values.values(),
            *((name,) for name in self.folders),
            *self.outline_classes().values(),
        ]

    def outline_classes(self) -> Mapping[str, tuple[str, ...]]:
        """Return the structures of each class, if masks are outlines; else nothing."""
        if self.values or self.folders or self.classes:
            return self.classes
        known = {name: (one.id,) for one in KNOWN_STRUCTURES for name in (one.id, one.name)}
        return known | {IGNORE: (IGNORE,)}

    def marked(self) -> set[str]:
        """Return the structures that the set marks, and those that hold them."""
        found: set[str] = set()
        for names in self.meanings():
            for name in names:
                holder: str | None = name if name != IGNORE else None
                while holder is not None:
                    found.add(holder)
                    holder = structure(holder).within
        return found

    def numbered_values(self) -> Values:
        """Return `values` with whole numbers as keys."""
        found: dict[int, tuple[str, ...]] = {}
        for text, names in self.values.items():
            try:
                number = int(text[1:], 16) if text.startswith("#") else int(text)
            except ValueError as error:
                raise ValueError(
                    f"{text!r} is no value of a mask; give a whole number or a colour as #rrggbb"
                ) from error
            found[number] = names
        return found


class SegmenterStart(FrozenConfig):
    """The initial weights."""

    weights: str | None = None
    """``imagenet`` or ``auto`` (ImageNet's if this machine has them) for the encoder, a file of
    weights of the encoder, or the run folder of another segmenter; by default random."""


class SegmenterConfig(FrozenConfig):
    """One training: from sets of images with masks to a run folder."""

    out: Path
    """The run folder; in a file, relative to that file."""
    sets: tuple[SetConfig, ...] = Field(min_length=1)
    structures: tuple[str, ...] = ()
    """To be outlined; by default all that the sets know."""
    mpp: float = Field(default=1.0, gt=0)
    """Micrometres per pixel that the network sees."""
    patch_px: int = Field(default=256, ge=32, multiple_of=32)
    """Height and width of training patches."""
    architecture: Literal["unet", "fpn"] = "unet"
    encoder: str = "tf_efficientnet_lite2"
    """Name in timm."""
    mean: Triple | None = None
    """Of each channel, of values from 0 to 1; by default what the initial weights expect."""
    std: Triple | None = None
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=30, ge=1)
    patches_per_epoch: int = Field(default=256, ge=1)
    batch_size: int = Field(default=8, ge=2)
    random_share: float = Field(default=0.3, ge=0, le=1)
    """Share of patches at random places; the others lie on a structure, each equally often."""
    scale_jitter: float = Field(default=0.15, ge=0, lt=1)
    """Patches are enlarged or shrunk by up to 1 + this."""
    held_out_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of the groups that are not trained on, and scored at the end."""
    clip_gradient_norm: float | None = Field(default=None, gt=0)
    precision: Precision = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    n_workers: int = Field(default=0, ge=0)
    """Processes that load patches."""
    start: SegmenterStart = SegmenterStart()
    augmentation: OnlineAugmentation | None = OnlineAugmentation(mixup=0.0, stain_jitter=0.2)
    """None (``augmentation = false`` in a file) disables it; mixup is never applied."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, weight_decay=1e-2)
    schedule: Schedule = CosineSchedule(n_warmup=1)

    @model_validator(mode="before")
    @classmethod
    def _false_is_none(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("augmentation") is False:  # TOML has no null
            return {**data, "augmentation": None}
        return data

    @model_validator(mode="after")
    def _check_sets(self) -> "SegmenterConfig":
        known = {name for one in self.sets for name in one.knows}
        if unknown := sorted(set(self.structures) - known):
            raise ValueError(
                f"no set knows the structure {unknown[0]!r}; add it to knows of a set that marks "
                "it everywhere, or leave it out of structures"
            )
        if not known:
            raise ValueError("no set has knows: the structures that it marks wherever they are")
        for one in self.sets:
            if never := sorted(set(one.knows) - one.marked()):
                raise ValueError(
                    f"the set {set_name(one)!r} knows {never[0]!r} and has no value, folder or "
                    "class for it"
                )
        names = [set_name(one) for one in self.sets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two sets are called {twice[0]!r}; give each its own name")
        self.ordered_structures()
        return self

    def ordered_structures(self) -> tuple[str, ...]:
        """Return the structures that are outlined, in drawing order."""
        known = {name for one in self.sets for name in one.knows}
        try:
            return tuple(in_drawing_order(self.structures or known))
        except ConfigError as error:
            raise ValueError(error.message) from error


def set_name(one: SetConfig) -> str:
    """Return the name of a set."""
    return one.name or one.images.stem or str(one.images)


def read_segmenter_config(
    path: Path, overrides: Mapping[str, object] | None = None
) -> SegmenterConfig:
    """Read a configuration as `glomerulab.training.config.read_config`; all paths are absolute."""
    config = read_toml_config(path, SegmenterConfig, ("out", "start.weights"), overrides)
    folder = path.absolute().parent
    sets = []
    for one in config.sets:
        masks = None if one.masks is None else folder / one.masks
        folders = {name: (masks or folder) / sub for name, sub in one.folders.items()}
        change = {"images": folder / one.images, "masks": masks, "folders": folders}
        sets.append(one.model_copy(update=change | {"name": set_name(one)}))
    return config.model_copy(update={"sets": tuple(sets)})


def write_segmenter_config(config: SegmenterConfig, path: Path) -> None:
    """Write a configuration with all defaults; `read_segmenter_config` reads it back equal."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(tomli_w.dumps(segmenter_values(config)).encode())


def segmenter_values(config: SegmenterConfig) -> dict[str, Any]:
    """Return the values of a configuration as TOML and JSON have them."""
    values = config.model_dump(mode="json", exclude_none=True)
    if config.augmentation is None:
        values["augmentation"] = False
    return values
