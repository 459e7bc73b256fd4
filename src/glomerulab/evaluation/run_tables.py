"""The tables of a run folder, read and checked. Neither weights nor pixels are opened."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import ConfigError, PredictionsError, TrainingError
from glomerulab.predictions import Head, read_predictions
from glomerulab.runtime.files import read_configuration, read_json
from glomerulab.runtime.sealing import SealedFolder
from glomerulab.runtime.tables import TableSchema, read_table
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "EXTERNAL",
    "RunTables",
    "read_history",
    "read_run",
    "repeat_file",
    "with_external_set",
]

EXTERNAL = "external"
"""Split of an external set in a run's tables, see `with_external_set`."""

HISTORY = TableSchema("history", ("epoch",), required=("epoch",), error=TrainingError)

MUST_AGREE = ("patient_id", "slide_id", "stain", "split")
"""Columns of the manifest that the predictions repeat."""


@dataclass(frozen=True)
class RunTables:
    """Tables and settings of a run folder."""

    folder: Path
    head: Head
    predictions: pd.DataFrame
    """One row per image, see `glomerulab.predictions`."""
    manifest: Manifest
    """Images that the run was trained and evaluated on."""
    history: pd.DataFrame
    """One row per epoch; empty without ``history.csv``."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_text: str
    """Text of the configuration file."""
    environment: dict[str, Any]
    """Versions, machine, commit, seed."""
    repeats: tuple[pd.DataFrame, ...] = ()
    """Of a repeated cross-validation: the predictions of its other repeats, as `predictions`."""
    is_sealed: bool = False
    """Whether a seal proves that training wrote the files."""
    source: Path | None = None
    """The table of another program; None for a run. Of the model's training nothing is known."""
    has_probabilities: bool = True
    """Whether there is more than the predicted labels."""

    @property
    def name(self) -> str:
        """Name of the folder or of the table."""
        return self.folder.resolve().name if self.source is None else self.source.stem

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels, in the order of every table and figure."""
        return self.manifest.taxonomy

    @property
    def is_synthetic(self) -> bool:
        """Whether any image of the manifest is rendered."""
        return self.manifest.is_synthetic

    @cached_property
    def image_paths(self) -> dict[str, Path]:
        """Absolute path of each image by its id."""
        ids = self.manifest.table["image_id"].astype(str)
        return dict(zip(ids, self.manifest.image_paths(), strict=True))


def read_run(run: Path | SealedFolder) -> RunTables:
    """Read the tables of a run folder.

    Parameters
    ----------
    run : Path
        As `glomerulab train` writes it. ``predictions.csv``, ``manifest.csv`` and ``config.toml``
        must be there; ``history.csv``, ``environment.json`` and ``taxonomy.toml`` may.

    Raises
    ------
    RunError
        If a sealed file is missing or changed.
    PredictionsError
        If the folder or its predictions are missing or invalid, or contradict the manifest; the
        message names the row.
    ManifestError
        If the manifest is missing or malformed.
    ConfigError
        If the configuration is missing or is not TOML.
    TrainingError
        If the history or the environment is there but cannot be read.
    """
    folder = run.folder if isinstance(run, SealedFolder) else run
    if not folder.is_dir():
        raise PredictionsError(
            "there is no such run folder; give the folder that `glomerulab train` wrote",
            where=str(folder),
        )
    files = SealedFolder.of(run)
    if not (folder / "config.toml").is_file() and (folder / "predictions.csv").is_file():
        raise PredictionsError(
            "the folder holds predictions but no config.toml, so it is no run of `glomerulab "
            "train`; give the table itself: `glomerulab evaluate PREDICTIONS.csv`",
            where=str(folder),
        )
    config_text, config = read_configuration(folder / "config.toml")
    head = _head(config, folder / "config.toml")
    predictions_path = folder / "predictions.csv"
    if not predictions_path.is_file():
        raise PredictionsError(
            "the run has no predictions yet; `glomerulab train` writes them at its end",
            where=str(predictions_path),
        )
    manifest = read_manifest(folder / "manifest.csv")
    predictions, *repeats = _read_repeats(folder, manifest, head)
    history = read_history(folder / "history.csv")
    environment = _read_environment(folder / "environment.json")
    files.check()  # again, so that nothing changed while it was read
    return RunTables(
        folder,
        head,
        predictions,
        manifest,
        history,
        config,
        config_text,
        environment,
        tuple(repeats),
        files.is_sealed,
    )


def repeat_file(repeat: int) -> str:
    """Name the predictions of one repeat of a cross-validation, counted from 1."""
    return "predictions.csv" if repeat == 1 else f"predictions-repeat-{repeat}.csv"


def _read_repeats(folder: Path, manifest: Manifest, head: Head) -> Iterator[pd.DataFrame]:
    """Read the predictions of a run, and of the other repeats of a cross-validation."""
    for repeat in count(1):
        path = folder / repeat_file(repeat)
        if repeat > 1 and not path.is_file():
            return
        predictions = read_predictions(path, manifest.taxonomy, head=head)
        _check_agreement(predictions, manifest, str(path))
        yield predictions


def with_external_set(run: RunTables, predictions: pd.DataFrame, manifest: Manifest) -> RunTables:
    """Return a run's tables with an external set as a further split.

    The predictions are those of the validation split, for fitting, and of the external set.

    Parameters
    ----------
    predictions : DataFrame
        Predictions of the run's model for the external images.
    manifest : Manifest
        The external images.
    """
    validation = run.predictions.loc[
        (run.predictions["split"] == "validation").fillna(value=False).astype(bool)
    ]
    of_set = predictions.assign(split=pd.array([EXTERNAL] * len(predictions), dtype="string"))
    both = [
        _with_absolute_paths(run.manifest),
        _with_absolute_paths(manifest).drop(columns="fold").assign(split=EXTERNAL),
    ]
    table = pd.concat(both, ignore_index=True)
    table["split"] = table["split"].astype("string")
    return replace(
        run,
        predictions=pd.concat([validation, of_set], ignore_index=True),
        repeats=(),  # the set is predicted once
        manifest=replace(run.manifest, table=table),
    )


def _with_absolute_paths(manifest: Manifest) -> pd.DataFrame:
    paths = pd.array([str(path) for path in manifest.image_paths()], dtype="string")
    return manifest.table.assign(image_path=paths)


def _head(config: dict[str, Any], path: Path) -> Head:
    model = config.get("model")
    head = model.get("head", "softmax") if isinstance(model, dict) else "softmax"
    if head == "softmax":
        return "softmax"
    if head == "sigmoid":
        return "sigmoid"
    raise ConfigError(f"model.head must be softmax or sigmoid, got {head!r}", where=str(path))


def _check_agreement(predictions: pd.DataFrame, manifest: Manifest, where: str) -> None:
    """Check that predictions and manifest belong together and agree."""
    known = manifest.table.drop_duplicates("image_id").set_index("image_id")
    unknown = ~predictions["image_id"].isin(known.index).to_numpy(dtype=bool)
    if unknown.any():
        raise PredictionsError(
            f"{_row(predictions, unknown)} is not in manifest.csv; the two are not of one run",
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
                f"{_row(predictions, differs)}: {column} differs from manifest.csv; one of the two "
                "was changed after the run",
                where=where,
            )


def _row(table: pd.DataFrame, wrong: npt.NDArray[np.bool_]) -> str:
    row = int(np.flatnonzero(wrong)[0])
    return f"line {row + 2}, image {table['image_id'].iloc[row]!r}"


def read_history(path: Path) -> pd.DataFrame:
    """Read ``history.csv`` as numbers, one row per epoch; empty without the file.

    Raises
    ------
    TrainingError
        If it cannot be read, has two columns of one name, or a cell is not a number.
    """
    if not path.is_file():
        return pd.DataFrame()
    table = read_table(path, HISTORY)
    history = table.frame()
    for name in history:
        numbers = pd.to_numeric(history[name], errors="coerce")
        is_stated = history[name].notna() & (history[name].str.casefold() != "nan")
        wrong = (numbers.isna() & is_stated).to_numpy(dtype=bool)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise TrainingError(
                f"line {row + 2}: {name} is {history[name].iloc[row]!r}, not a number; train again",
                where=str(path),
            )
        history[name] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return history


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    environment = read_json(path, "record of the environment", error=TrainingError)
    if not isinstance(environment, dict):
        raise TrainingError("the environment must be one JSON object", where=str(path))
    return environment
