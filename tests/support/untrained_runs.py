"""Runs with a checkpoint and images, for tests that need more than tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.inference.image_predictions import predict_manifest
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.predictions import write_predictions
from glomerulab.runtime.sealing import write_seal
from tests.support.known_networks import small_card, write_small_checkpoint

__all__ = ["write_two_cohorts", "write_untrained_run"]


def write_two_cohorts(folder: Path) -> tuple[Path, Path]:
    """Write two phantom cohorts; of the first every third patient is validation, or test."""
    own = write_phantom_crops(
        folder / "own", n_patients=6, n_per_patient=7, size=64, mpp=3.0, seed=1
    )
    other = write_phantom_crops(
        folder / "other", n_patients=3, n_per_patient=4, size=64, mpp=3.0, seed=2
    )
    manifest = read_manifest(own)
    number = manifest.table["patient_id"].str[-3:].astype(int)
    parts = np.array(["train", "validation", "test"])[number % 3]
    table = manifest.table.assign(
        split=pd.array(parts, dtype="string"), site=np.where(number % 2, "north", "south")
    )
    write_manifest(manifest.with_table(table), own)
    return own, other


def write_untrained_run(folder: Path, manifest_path: Path) -> Path:
    """Write the sealed run of an untrained network: it errs a lot, which is what is looked at."""
    card = small_card(input_size=48)
    write_small_checkpoint(folder, input_size=48)
    manifest = read_manifest(manifest_path)
    write_manifest(manifest, folder / "manifest.csv")
    write_predictions(predict_manifest(folder, manifest).table, folder / "predictions.csv")
    config = {"seed": 0, "model": {"name": card.model, "head": card.head}}
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    write_seal(folder)
    return folder
