"""Fields with discs that stand for glomeruli, and the configuration of a tiny training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glomerulab.training.segmentation.config import SegmenterConfig

MakeFields = Callable[..., Path]
Configure = Callable[..., SegmenterConfig]


def draw_discs(seed: int, side: int = 96, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of pink tissue with violet discs, and their mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for _ in range(n):
        cx, cy = rng.uniform(15, side - 15, 2)
        mask |= (x - cx) ** 2 + (y - cy) ** 2 < rng.uniform(9, 13) ** 2
    image = np.full((side, side, 3), (225, 170, 200), np.float64)
    image[mask] = (140, 60, 150)
    image += rng.normal(0, 8, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def make_fields(tmp_path: Path) -> MakeFields:
    def make(n: int = 6, *, name: str = "set", side: int = 96) -> Path:
        folder = tmp_path / name
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            image, mask = draw_discs(number, side)
            Image.fromarray(image).save(folder / "images" / f"f{number}.png")
            Image.fromarray(mask.astype(np.uint8) * 7).save(folder / "masks" / f"f{number}.png")
        return folder

    return make


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def build(*sets: dict[str, Any], **changes: object) -> SegmenterConfig:
        values: dict[str, Any] = {
            "out": tmp_path / "run",
            "sets": list(sets),
            "encoder": "mobilenetv2_050",
            "patch_px": 64,
            "epochs": 2,
            "patches_per_epoch": 8,
            "batch_size": 4,
            "held_out_share": 0.34,
        }
        return SegmenterConfig.model_validate(values | changes)

    return build


def disc_set(folder: Path, **changes: object) -> dict[str, Any]:
    return {
        "name": "discs",
        "images": folder / "images",
        "masks": folder / "masks",
        "values": {"7": "glomerulus"},
        "knows": ["glomerulus"],
        "mpp": 1.0,
        **changes,
    }
