"""The tables of a run folder, read and checked: all that judging ever sees of a model.

It must not know of weights, images' pixels or how the run was made.
"""

import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.errors import ConfigError, ManifestError, PredictionsError, TrainingError
from glomerulab.predictions import Head, read_predictions
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = ["RunTables", "read_run"]

TEXT_COLUMNS = ("image_id", "image_path", "patient_id", "slide_id", "stain", "parent_id", "split")


@dataclass(frozen=True)
class RunTables:
    """What a run folder says of itself."""

    folder: Path
    taxonomy: Taxonomy
    head: Head
    predictions: pd.DataFrame
    """One row per image, see `glomerulab.predictions`."""
    manifest: pd.DataFrame
    """One row per image the run was trained or judged on; string ids."""
    history: pd.DataFrame
    """One row per epoch; empty where the run keeps none."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_text: str
    """The same as it stands in the file."""
    environment: dict[str, Any]
    """Versions, machine, commit, seed."""

    @cached_property
    def is_synthetic(self) -> bool:
        """Whether any image of the manifest was rendered, not scanned."""
        if "synthetic" not in self.manifest:
            return False
        flags = self.manifest["synthetic"].astype("string").str.casefold()
        return bool(flags.isin(["1", "1.0", "true"]).any())

    @cached_property
    def image_paths(self) -> dict[str, Path]:
        """Absolute path of each image by its id; the manifest's paths are relative to it."""
        paths = self.manifest[["image_id", "image_path"]].dropna()
        folder = self.folder.resolve()
        return {
            str(image_id): folder / str(path)
            for image_id, path in zip(paths["image_id"], paths["image_path"], strict=True)
        }


def read_run(folder: Path) -> RunTables:
    """Read the tables of a run folder.

    Parameters
    ----------
    folder : Path
        As `glomerulab train` writes it. ``predictions.csv``, ``manifest.csv`` and ``config.toml``
        must be there; ``history.csv``, ``environment.json`` and ``taxonomy.toml`` may.

    Returns
    -------
    RunTables

    Raises
    ------
    PredictionsError
        If the folder or its predictions are missing or break a rule; the message names the row.
    ManifestError
        If the manifest is missing, or lacks an image of the predictions.
    ConfigError
        If the configuration is missing or is not TOML.
    TrainingError
        If the history or the environment is there but cannot be read.
    """
    if not folder.is_dir():
        raise PredictionsError("no such run folder", where=str(folder))
    taxonomy_path = folder / "taxonomy.toml"
    taxonomy = load_taxonomy(taxonomy_path if taxonomy_path.is_file() else "paper")
    config_text, config = _read_config(folder / "config.toml")
    head = _head(config, folder / "config.toml")
    predictions_path = folder / "predictions.csv"
    if not predictions_path.is_file():
        raise PredictionsError(
            "missing; a run folder has one when `glomerulab train` has ended",
            where=str(predictions_path),
        )
    predictions = read_predictions(predictions_path, taxonomy, head=head)
    manifest = _read_manifest(folder / "manifest.csv", predictions)
    history = _read_history(folder / "history.csv")
    environment = _read_environment(folder / "environment.json")
    return RunTables(
        folder, taxonomy, head, predictions, manifest, history, config, config_text, environment
    )


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from error


def _head(config: dict[str, Any], path: Path) -> Head:
    """Find the head where the training writes it."""  # noqa: DOC501 - told by read_run
    model = config.get("model")
    head = model.get("head", "softmax") if isinstance(model, dict) else "softmax"
    if head == "softmax":
        return "softmax"
    if head == "sigmoid":
        return "sigmoid"
    raise ConfigError(f"model.head must be softmax or sigmoid, got {head!r}", where=str(path))


def _read_manifest(path: Path, predictions: pd.DataFrame) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, "string"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot be read as CSV: {error}", where=str(path)) from error
    missing = [name for name in ("image_id", "image_path") if name not in table]
    if missing:
        raise ManifestError(f"missing column(s): {', '.join(missing)}", where=str(path))
    unknown = ~predictions["image_id"].isin(table["image_id"])
    if unknown.any():
        first = predictions.loc[unknown, "image_id"].iloc[0]
        raise ManifestError(
            f"lacks image {first!r}, which predictions.csv has; the two are not of one run",
            where=str(path),
        )
    return table


def _read_history(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot be read as CSV: {error}", where=str(path)) from error
    if "epoch" not in history:
        raise TrainingError("missing column: epoch", where=str(path))
    return history


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(environment, dict):
        raise TrainingError("must hold one JSON object", where=str(path))
    return environment
