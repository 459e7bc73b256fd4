"""Run folders with real tables, written by code from a seed, as `glomerulab train` leaves them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w

from glomerulab.images import write_image
from glomerulab.taxonomy import Taxonomy, load_taxonomy, write_taxonomy

__all__ = ["RunRecipe", "write_run"]


@dataclass(frozen=True)
class RunRecipe:
    """What the run is like."""

    n_patients: int = 40
    n_images_per_patient: int = 12
    head: str = "softmax"
    skill: float = 2.2
    seed: int = 7
    synthetic: bool = True
    by_patient: bool = True
    taxonomy: Taxonomy | None = None
    overconfidence: float = 1.6


def write_run(folder: Path, recipe: RunRecipe | None = None) -> Path:
    """Write a run folder whose model is better than chance in every class, less so in rare ones."""
    recipe = recipe or RunRecipe()
    rng = np.random.default_rng(recipe.seed)
    taxonomy = recipe.taxonomy or load_taxonomy("paper")
    ids = list(taxonomy.label_ids)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    n = recipe.n_patients * recipe.n_images_per_patient
    patient = np.repeat(np.arange(recipe.n_patients), recipe.n_images_per_patient)
    rng.shuffle(patient)
    labels = _labels(rng, patient, len(ids), recipe)
    probabilities = _probabilities(rng, labels, patient, recipe)
    manifest = pd.DataFrame(
        {
            "image_id": [f"image_{i:04d}" for i in range(n)],
            "image_path": [f"images/image_{i:04d}.png" for i in range(n)],
            "patient_id": [f"patient_{p:03d}" for p in patient],
            "slide_id": [f"slide_{p:03d}_{i % 2}" for i, p in enumerate(patient)],
            "stain": np.where(np.arange(n) % 3 == 0, "HE", "PAS"),
            "mpp": 0.5,
            "parent_id": pd.array([None] * n, dtype="string"),
            "split": _splits(rng, patient, recipe),
            **{label_id: labels[:, k] for k, label_id in enumerate(ids)},
            "synthetic": int(recipe.synthetic),
        }
    )
    held_out = manifest["split"] != "train"
    for row in manifest.loc[held_out].itertuples():
        _write_picture(rng, folder / str(row.image_path), labels[row.Index])
    manifest.to_csv(folder / "manifest.csv", index=False)
    predictions = manifest[["image_id", "patient_id", "slide_id", "stain", "split"]].copy()
    for k, label_id in enumerate(ids):
        predictions[f"label_{label_id}"] = labels[:, k]
        predictions[f"probability_{label_id}"] = probabilities[:, k]
    predictions.loc[held_out].to_csv(folder / "predictions.csv", index=False)
    _history(rng).to_csv(folder / "history.csv", index=False)
    _write_settings(folder, recipe)
    if recipe.taxonomy is not None:
        write_taxonomy(taxonomy, folder / "taxonomy.toml")
    return folder


def _labels(rng, patient, n_labels, recipe):
    """Patients differ in what they have, as patients do."""
    taste = rng.dirichlet(np.full(n_labels, 1.2), size=recipe.n_patients)
    if recipe.head == "softmax":
        chosen = np.array([rng.choice(n_labels, p=taste[p]) for p in patient])
        return np.eye(n_labels, dtype=int)[chosen]
    labels = (rng.random((len(patient), n_labels)) < 0.25 + 0.5 * taste[patient]).astype(int)
    labels[:, 0] = labels[:, 1:].sum(axis=1) == 0  # normal excludes every lesion
    return labels


def _probabilities(rng, labels, patient, recipe):
    """Logits that know the label, a patient effect, and too much confidence."""
    effect = rng.normal(0, 0.9, size=(recipe.n_patients, labels.shape[1]))[patient]
    signal = recipe.skill * (2 * labels - 1) / 2 + effect + rng.normal(0, 1.0, size=labels.shape)
    logits = recipe.overconfidence * signal
    if recipe.head == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _splits(rng, patient, recipe):
    unit = patient if recipe.by_patient else np.arange(len(patient))
    order = rng.permutation(unit.max() + 1)
    place = np.argsort(order)[unit] / (unit.max() + 1)
    return np.select([place < 0.6, place < 0.8], ["train", "validation"], "test")


def _history(rng):
    epoch = np.arange(1, 41)
    train = 1.35 * np.exp(-epoch / 11) + 0.05 + rng.normal(0, 0.015, 40)
    validation = 1.3 * np.exp(-epoch / 9) + 0.32 + 0.004 * epoch + rng.normal(0, 0.03, 40)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "lr": 1e-3 * (1 + np.cos(np.pi * epoch / 40)) / 2,
            "train_loss": train.clip(0.01),
            "train_accuracy": (1 - 0.62 * np.exp(-epoch / 8) + rng.normal(0, 0.008, 40)).clip(0, 1),
            "validation_loss": validation,
            "validation_accuracy": (0.86 - 0.5 * np.exp(-epoch / 7) + rng.normal(0, 0.02, 40)).clip(
                0, 1
            ),
            "seconds": 6.0 + rng.random(40),
        }
    )


def _write_picture(rng, path, flags):
    """A pink field with a disc whose colour depends on the label."""
    y, x = np.mgrid[:96, :96]
    disc = (x - 48) ** 2 + (y - 48) ** 2 < rng.integers(24, 40) ** 2
    image = np.full((96, 96, 3), (238, 214, 228), dtype=np.float64)
    image[disc] = np.array([[206, 140, 178], [168, 96, 160], [214, 92, 140], [120, 84, 150]])[
        int(np.argmax(flags)) % 4
    ]
    write_image((image + rng.normal(0, 9, image.shape)).clip(0, 255).astype(np.uint8), path)


def _write_settings(folder, recipe):
    config = {
        "manifest": "cohort/manifest.csv",
        "out": "runs/first",
        "seed": recipe.seed,
        "epochs": 40,
        "batch_size": 16,
        "model": {"name": "improved_seresnet50", "head": recipe.head, "dropout": 0.2},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    }
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    environment = {
        "python": "3.12.4",
        "glomerulab": "0.1.0",
        "packages": {"torch": "2.13.0", "timm": "1.0.15", "numpy": "2.4.6"},
        "machine": {"cpu": "2 cores", "accelerator": None},
        "commit": "a5ebc3a",
        "seed": recipe.seed,
    }
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
