"""The card of a model; without torch, so that an exported model needs none."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glomerulab.predictions import Head
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["ModelCard", "Option", "Origin", "SegmenterCard"]

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
    weights_sha256: str = ""
    """Set when it is loaded."""

    @property
    def n_channels(self) -> int:
        """Number of channels of the output."""
        return len(self.structures) + len(self.cores)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        for name, ids in (("structures", self.structures), ("cores", self.cores)):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} names a structure twice")
        if others := set(self.cores) - set(self.structures):
            raise ValueError(f"cores names {min(others)!r}, which is not in structures")
        return self
