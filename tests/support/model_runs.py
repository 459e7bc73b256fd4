"""A run folder with a real, tiny network, trained for seconds: something to apply."""

from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.images import write_image
from glomerulab.taxonomy import load_taxonomy
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train
from tests.support.cases import COLOURS, picture

__all__ = ["train_small_run"]

PARTS = ["train"] * 48 + ["validation"] * 24 + ["test"] * 12


def train_small_run(
    folder: Path, *, head: str = "softmax", epochs: int = 4, **model: object
) -> Path:
    """Train on 84 images of 48 px; give the run folder."""
    rng = np.random.default_rng(11)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(COLOURS)
    rows = []
    for number, split in enumerate(PARTS):
        label = names[number % 4]
        write_image(picture(rng, label), folder / f"{number}.png")
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "split": split, "mpp": 0.5}
            | {"patient_id": f"p{split}{number // 4}", "slide_id": f"s{split}{number // 4}"}
            | {"stain": "PAS", "synthetic": 1}
            | {name: int(name == label) for name in names}
        )
    manifest = manifest_from_rows(
        pd.DataFrame(rows), folder=folder, taxonomy=load_taxonomy("paper")
    )
    write_manifest(manifest, folder / "manifest.csv")
    return train(
        TrainConfig.model_validate(
            {
                "manifest": folder / "manifest.csv",
                "out": folder / "run",
                "epochs": epochs,
                "batch_size": 12,
                "precision": "float32",
                "augmentation": False,
                "model": {"name": "improved_seresnet_small", "input_size": 32, "head": head}
                | model,
                "optimizer": {"learning_rate": 3e-3},
            }
        )
    )
