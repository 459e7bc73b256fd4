from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.images import write_image
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.config import TrainConfig

N_TRAIN, N_VALIDATION, N_TEST = 20, 8, 8


@pytest.fixture
def config(tmp_path: Path, rng: np.random.Generator) -> TrainConfig:
    """Two classes that differ in colour: 36 images of 40 px, 3 epochs of the small net."""
    taxonomy = Taxonomy("colours", (Label(id="pink", name="Pink"), Label(id="blue", name="Blue")))
    parts = ["train"] * N_TRAIN + ["validation"] * N_VALIDATION + ["test"] * N_TEST
    rows = []
    for number, split in enumerate(parts):
        pink = number % 2
        colour = (230, 120, 170) if pink else (90, 110, 220)
        image = np.clip(rng.normal(colour, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
        write_image(image, tmp_path / f"{number}.png")
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "split": split}
            | {"patient_id": f"p{number // 2}", "pink": pink, "blue": 1 - pink, "mpp": 0.5}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=taxonomy)
    write_manifest(manifest, tmp_path / "manifest.csv")
    return TrainConfig.model_validate(
        {
            "manifest": tmp_path / "manifest.csv",
            "out": tmp_path / "run",
            "epochs": 3,
            "batch_size": 8,
            "model": {"name": "improved_seresnet_small", "input_size": 32, "dropout": 0.3},
            "optimizer": {"learning_rate": 3e-3},
        }
    )
