"""How `predict` reads slides and crops."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PredictSettings"]

MANY_IMAGES = 500
"""From so many on processes are started: each start takes seconds, an image some 20 ms here."""


@dataclass(frozen=True)
class PredictSettings:
    """How slides are read."""

    regions: Path | None = None
    """For slides: one region file, or a folder with one called after each slide."""
    margin: float = 0.1
    """As the training crops were cut."""
    mpp_override: float | None = None
    stain: str | None = None
    """Of slides and crops that do not say."""
    n_workers: int = 1
    detector: Path | None = None
    """Instead of regions: what ``train-detector`` made; it proposes them."""
    symmetries: bool = False
    """Whether each image is judged in all eight ways it can lie, and the mean taken."""
    saliency: bool = False
    """Whether a picture of where the network looked is made of each image."""

    def processes(self, n_images: int) -> int:
        """Return how many processes so many images are worth, `n_workers` at most."""
        return self.n_workers if n_images >= MANY_IMAGES else 1
