"""The card of a model; without torch, so that an exported model needs none."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, deserialize

from glomerulab.errors import CheckpointError
from glomerulab.predictions import Head
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import SealedFolder, is_crossval, read_bundle
from glomerulab.taxonomy import Label, Taxonomy

__all__ = [
    "CHECKPOINT",
    "MIN_DICE",
    "ModelCard",
    "Option",
    "Origin",
    "SegmenterCard",
    "read_card",
    "read_model_card",
    "weights_file",
    "weights_hash",
]

CHECKPOINT = "checkpoint"
MIN_DICE = 0.2
"""Of a structure on images that a segmenter never saw. Dice is the harmonic mean of the share of
the structure that is found and the share of the outlined that is right: below it, four fifths are
missed, or four fifths of what is outlined is something else."""
Triple = tuple[float, float, float]
"""One number per colour channel."""
Option = bool | int | float | str | tuple[int | float, ...]
"""Value of an option of a network."""


class Origin(BaseModel):
    """Where the starting weights of a model come from, and on what terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    licence: str | None = None
    """As its publisher names it; None if its files state none."""
    citation: str | None = None


class ModelCard(BaseModel):
    """Everything besides the weights that is needed to use a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str
    """Name in the registry."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Options of this network, see the registry."""
    head: Head = "softmax"
    taxonomy_name: str
    labels: tuple[Label, ...]
    input_size: int = Field(ge=8)
    """Height and width of the images, px."""
    mean: Triple
    """Of each channel, of values from 0 to 1."""
    std: Triple
    mpp: float | None = Field(default=None, gt=0)
    """Median of the training crops, µm per pixel; None if no crop states it."""
    stain_reference: str | None = None
    """Path of the reference that the training images were normalised to."""
    origin: Origin | None = None
    """Of published starting weights; a run that starts from this one keeps it."""
    epoch: int = 0
    """Epochs the weights were trained for."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels, in the order of the logits."""
        return Taxonomy(self.taxonomy_name, self.labels)


class SegmenterCard(BaseModel):
    """Everything besides the weights that is needed to use a network that outlines structures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["segmenter"] = "segmenter"
    format: Literal[1] = 1
    architecture: str = "unet"
    """Of `glomerulab.models.segmentation`; ``onnx`` for a network of another project."""
    encoder: str = ""
    """Name in timm."""
    structures: tuple[str, ...] = Field(min_length=1)
    """Structure of each channel, in order; several may hold at one pixel."""
    cores: tuple[str, ...] = ()
    """Structures whose core, the part away from the border of an object, has a channel. These
    follow those of the structures, in this order."""
    mpp: float = Field(gt=0)
    """Micrometres per pixel of the images."""
    patch_px: int = Field(ge=32)
    """Height and width of the training images."""
    has_fixed_size: bool = False
    """Whether the network takes images of `patch_px` only, instead of any multiple of 32."""
    mean: Triple
    """Of each channel, of values from 0 to 1."""
    std: Triple
    stains_seen: tuple[str, ...] = ()
    """Of the training images; empty if not known."""
    trained_on_synthetic: bool = False
    origin: Origin | None = None
    """Of the encoder's published starting weights."""
    epoch: int = 0
    """Epochs the weights were trained for."""
    test_summary: str = ""
    """Scores on groups that it never saw; empty if there are none."""
    test_summary_zh: str = ""
    dice: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Of structures on groups that it never saw; one that is absent was not scored."""
    weights_sha256: str = ""
    """Set when it is loaded."""

    @property
    def hardly_found(self) -> dict[str, float]:
        """Structures with a Dice below `MIN_DICE`, of which no number can be given, with it."""
        return {
            name: self.dice[name]
            for name in self.structures
            if self.dice.get(name, MIN_DICE) < MIN_DICE
        }

    @property
    def n_channels(self) -> int:
        """Number of channels of the output."""
        return len(self.structures) + len(self.cores)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        for name, ids in (("structures", self.structures), ("cores", self.cores)):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} names a structure twice")
        for key, named in (("cores", self.cores), ("dice", tuple(self.dice))):
            if others := set(named) - set(self.structures):
                raise ValueError(f"{key} names {min(others)!r}, which is not in structures")
        return self


def read_card(files: SealedFolder) -> tuple[bytes, dict[str, Any], str]:
    """Read the bytes of the weights of a run or its ``checkpoint``, the facts, and their file."""
    in_run = f"{CHECKPOINT}/{CHECKPOINT}"
    name = in_run if files.has(f"{in_run}.json") else CHECKPOINT
    content, facts = read_bundle(files, name)
    return content, files.checked_card(facts), str(files.folder / f"{name}.json")


def read_model_card(files: SealedFolder) -> tuple[bytes, ModelCard, Path]:
    """Read the bytes of the weights of a classifier, its card, and the file of the weights.

    Raises
    ------
    CheckpointError
        If a file is missing, altered or malformed, or the folder holds a cross-validation.
    RunError
        If a file is not the one that was sealed.
    """
    if is_crossval(files.folder):
        raise CheckpointError(
            "a cross-validation has a model of each fold, and one model is needed here; give the "
            "folder of one, such as runs/repeat-1-fold-0 in it, or train on all images",
            where=str(files.folder),
        )
    content, facts, where = read_card(files)
    if facts.get("kind") == "segmenter":
        raise CheckpointError(
            "the model is a segmenter, which outlines structures, and a classifier is needed here; "
            "give a folder that `glomerulab train` wrote, and this one with --detect",
            where=str(files.folder),
        )
    known = {key: value for key, value in facts.items() if not key.startswith("tensors_")}
    try:
        card = ModelCard.model_validate(known)
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=where) from error
    return content, card, weights_file(facts, where)


def weights_file(facts: Mapping[str, Any], where: str) -> Path:
    """Return the file of the weights that the facts in the file `where` name."""
    return Path(where).with_name(str(facts["tensors_file"]))


def weights_hash(content: bytes) -> str:
    """Return the SHA-256 of the names and values in a safetensors file; empty if it is none."""
    digest = hashlib.sha256()
    try:
        tensors = sorted(deserialize(content), key=lambda one: str(one[0]))  # type: ignore[no-untyped-call]
    except SafetensorError:
        return ""
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor["data"])
    return digest.hexdigest()
