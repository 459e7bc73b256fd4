"""The tables of a run folder, read and checked: all that judging ever sees of a model.

It must not know of weights, images' pixels or how the run was made.
"""

import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import ConfigError, PredictionsError, TrainingError
from glomerulab.predictions import Head, read_predictions
from glomerulab.runtime.sealing import check_seal
from glomerulab.taxonomy import Taxonomy

__all__ = ["EXTERNAL", "RunTables", "read_run"]

EXTERNAL = "external"
"""The part that an external set is in a run's tables, see `glomerulab.evaluation.external`."""

MUST_AGREE = ("patient_id", "slide_id", "stain", "split")
"""What the predictions repeat of the manifest."""


@dataclass(frozen=True)
class RunTables:
    """What a run folder says of itself."""

    folder: Path
    head: Head
    predictions: pd.DataFrame
    """One row per image, see `glomerulab.predictions`."""
    manifest: Manifest
    """The images the run was trained and judged on."""
    history: pd.DataFrame
    """One row per epoch; empty where the run keeps none."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_text: str
    """The same as it stands in the file."""
    environment: dict[str, Any]
    """Versions, machine, commit, seed."""
    is_sealed: bool = False
    """Whether the files are known to be those that training wrote."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels, in the order of every table and figure."""
        return self.manifest.taxonomy

    @property
    def is_synthetic(self) -> bool:
        """Whether any image of the manifest was rendered, not scanned."""
        return self.manifest.is_synthetic

    @cached_property
    def image_paths(self) -> dict[str, Path]:
        """Absolute path of each image by its id."""
        ids = self.manifest.table["image_id"].astype(str)
        return dict(zip(ids, self.manifest.image_paths(), strict=True))


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
    RunError
        If a file that training sealed is missing or was changed.
    PredictionsError
        If the folder or its predictions are missing or break a rule, or say of an image what the
        manifest does not; the message names the row.
    ManifestError
        If the manifest is missing or malformed.
    ConfigError
        If the configuration is missing or is not TOML.
    TrainingError
        If the history or the environment is there but cannot be read.
    """
    if not folder.is_dir():
        raise PredictionsError("no such run folder", where=str(folder))
    is_sealed = check_seal(folder)
    config_text, config = _read_config(folder / "config.toml")
    head = _head(config, folder / "config.toml")
    predictions_path = folder / "predictions.csv"
    if not predictions_path.is_file():
        raise PredictionsError(
            "missing; a run folder has one when `glomerulab train` has ended",
            where=str(predictions_path),
        )
    manifest = read_manifest(folder / "manifest.csv")
    predictions = read_predictions(predictions_path, manifest.taxonomy, head=head)
    _refuse_disagreement(predictions, manifest, str(predictions_path))
    history = _read_history(folder / "history.csv")
    environment = _read_environment(folder / "environment.json")
    return RunTables(
        folder, head, predictions, manifest, history, config, config_text, environment, is_sealed
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
    """Find the head where the training writes it."""
    model = config.get("model")
    head = model.get("head", "softmax") if isinstance(model, dict) else "softmax"
    if head == "softmax":
        return "softmax"
    if head == "sigmoid":
        return "sigmoid"
    raise ConfigError(f"model.head must be softmax or sigmoid, got {head!r}", where=str(path))


def _refuse_disagreement(predictions: pd.DataFrame, manifest: Manifest, where: str) -> None:
    """Make sure that both tables are of one run, and neither was edited since."""
    known = manifest.table.drop_duplicates("image_id").set_index("image_id")
    unknown = ~predictions["image_id"].isin(known.index).to_numpy(dtype=bool)
    if unknown.any():
        raise PredictionsError(
            f"{_row(predictions, unknown)}: not in manifest.csv; the two are not of one run",
            where=where,
        )
    expected = known.loc[predictions["image_id"]].reset_index(drop=True)
    repeated = [(name, name) for name in MUST_AGREE if name in predictions]
    repeated += [(f"label_{label}", label) for label in manifest.taxonomy.label_ids]
    for column, name in repeated:
        here, there = predictions[column], expected[name]
        same = (here == there).fillna(value=False) | (here.isna() & there.isna())
        differs = ~same.to_numpy(dtype=bool)
        if differs.any():
            raise PredictionsError(
                f"{_row(predictions, differs)}: {column} is not what manifest.csv says; one of "
                "the two was changed after the run",
                where=where,
            )


def _row(table: pd.DataFrame, wrong: npt.NDArray[np.bool_]) -> str:
    place = int(np.flatnonzero(wrong)[0])
    return f"line {place + 2}, image {table['image_id'].iloc[place]!r}"


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
