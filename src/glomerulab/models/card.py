"""The card of a model; without torch, so that an exported model needs none."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from glomerulab.predictions import Head
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["ModelCard", "Option", "Origin"]

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
