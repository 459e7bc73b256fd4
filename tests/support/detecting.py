"""A slide with dark discs for glomeruli, and an engine that knows them by their colour."""

from pathlib import Path

import numpy as np

from glomerulab.geometry import Region
from glomerulab.inference.detector import DetectorCard
from glomerulab.inference.engines.base import ModelOutput
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.detector import DETECTOR_TAXONOMY
from glomerulab.slides.pyramid import write_pyramid

__all__ = ["ByColour", "detector_card", "disc_outline", "disc_slide"]

TISSUE, GLOMERULUS, GLASS = (225, 170, 200), (120, 60, 140), (243, 242, 241)


def disc_outline(x: float, y: float, radius: float):
    """A disc as a polygon."""
    angles = np.arange(48) * 2 * np.pi / 48
    return tuple((float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angles)


def disc_slide(path: Path, discs, *, size=(1600, 900), mpp=1.0) -> list[Region]:
    """Write a slide of tissue with a border of glass and discs (x, y, radius) in pixels."""
    width, height = size
    rows, columns = np.indices((height, width))
    pixels = np.full((height, width, 3), GLASS, dtype=np.uint8)
    pixels[60:-60, 60:-60] = TISSUE
    for x, y, radius in discs:
        pixels[np.hypot(columns - x, rows - y) < radius] = GLOMERULUS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(pixels, path, mpp=mpp, compression="deflate")
    return [
        Region(f"{path.stem}-g{n}", disc_outline(*disc)) for n, disc in enumerate(discs, start=1)
    ]


class ByColour:
    """Predicts a glomerulus where the middle of a tile is dark."""

    def __init__(self, side: int = 32, mpp: float = 4.0) -> None:
        self.card = ModelCard(
            model="by_colour",
            taxonomy_name="detector",
            labels=DETECTOR_TAXONOMY.labels,
            input_size=side,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            mpp=mpp,
        )
        self.weights_sha256 = "cd" * 32
        self.max_concurrency = 1
        self.is_gpu = False
        self.n_images = 0

    def predict(self, images) -> ModelOutput:
        """Return the logits of a batch."""
        self.n_images += len(images)
        middle = self.card.input_size // 2
        core = images[:, middle - 2 : middle + 2, middle - 2 : middle + 2].mean(axis=(1, 2, 3))
        logits = np.stack([(150 - core) / 5, (core - 150) / 5], axis=1).astype(np.float32)
        return ModelOutput(logits, core[:, None].astype(np.float32))


def detector_card(**changes) -> DetectorCard:
    """A card of made-up numbers, for the weights of `ByColour`."""
    facts = {
        "weights_sha256": "cd" * 32,
        "score_threshold": 0.5,
        "growth": 1.0,
        "n_validation_slides": 2,
        "stains_seen": ("PAS",),
        "trained_on_synthetic": True,
        "test_summary": "",
    }
    return DetectorCard.model_validate(facts | changes)
