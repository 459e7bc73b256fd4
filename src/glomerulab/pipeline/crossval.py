"""Cross-validation: every patient is held out once, and the held-out predictions are pooled.

Each fold is a run folder of its own below ``runs/``, and can be resumed as any run. The folder of
the cross-validation has the files of a run: ``predictions.csv`` holds, for every image, the
prediction of the model that did not see its patient.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.folds import check_folds, fold_split
from glomerulab.cohort.leakage import find_leaks, recheck_target_leaks, target_leak_parts
from glomerulab.cohort.manifest import Manifest, read_manifest, write_manifest
from glomerulab.cohort.schema import NORMALIZED_FROM_COLUMN
from glomerulab.cohort.splits import assign_folds, group_rows
from glomerulab.errors import ConfigError, LeakageError, StainError, TrainingError
from glomerulab.evaluation.run_tables import repeat_file
from glomerulab.images import read_image
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.predictions import read_predictions, write_predictions
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile, folder_lock
from glomerulab.runtime.sealing import (
    CROSSVAL_FILE,
    SEAL_FILE,
    check_seal,
    refuse_other_model,
    write_seal,
)
from glomerulab.stain.fitting import FitFailure, try_fit
from glomerulab.stain.reference import StainReference, aggregate
from glomerulab.training.compare import CompareConfig, TrainedModels, measure_cost, run_config
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.run import train
from glomerulab.training.run_folder import describe_environment, file_sha256
from glomerulab.training.search import read_search_config, search

__all__ = ["CrossvalSettings", "compare_by_folds", "cross_validate"]

logger = logging.getLogger(__name__)

WITHOUT_EFFECT = {"out", "manifest", "n_workers", "tensorboard"}
N_DEFAULT_FOLDS = 5
N_TARGET_IMAGES = 8
"""Training images, of different patients where possible, whose mean is the stain target."""


@dataclass(frozen=True, slots=True)
class CrossvalSettings:
    """How a cohort is divided, and what is chosen inside each fold."""

    folds: int | None = None
    """By default those of the manifest's column `fold`, or else 5, or else one per site."""
    repeats: int = 1
    """Times that the cohort is divided anew, with another seed."""
    group: str = "patient"
    """``patient``, or a column of the manifest, such as ``site``, whose images stay together."""
    validation_share: float = 0.2
    """Share of the training patients that are held out for choosing epochs or settings."""
    nested: Path | None = None
    """Configuration of a search that chooses the settings inside each fold."""
    normalize: bool = False
    """Normalise the stains inside each fold, to a target from its training images."""


@dataclass(frozen=True, slots=True)
class _Fold:
    """One training of a cross-validation."""

    repeat: int
    """From 1."""
    number: int
    """From 0."""
    manifest: Manifest
    """With the folds of this repeat."""

    @property
    def name(self) -> str:
        return f"repeat-{self.repeat}-fold-{self.number}"


def cross_validate(
    config: TrainConfig,
    settings: CrossvalSettings | None = None,
    *,
    track: Track = silent,
    echo: Callable[[str], None] = logger.info,
) -> Path:
    """Train once per fold and pool the predictions of the held-out images.

    Parameters
    ----------
    config : TrainConfig
        `out` is the folder of the cross-validation. Images of the test part of the manifest are
        left out; its training and validation parts are divided anew.
    settings : CrossvalSettings, optional
    track, echo : callable, optional
        Receive the progress of each training, and each line for the user.

    Returns
    -------
    Path
        The folder: ``runs/``, ``folds/``, ``manifest.csv``, ``predictions.csv``, ``config.toml``,
        ``environment.json``, ``crossval.json`` and ``seal.json``. A folder that was begun with the
        same settings is continued.

    Raises
    ------
    ManifestError
        If there are fewer groups than folds, or an image has no patient or site.
    TrainingError
        If a label would be missing in the training part of a fold.
    LeakageError
        If a patient is in several folds, or the manifest was normalised to a target that some fold
        holds out.
    OutputError
        If the folder holds a cross-validation with other settings, or a run.
    StainError
        If there is nothing to normalise.
    """
    settings = settings or CrossvalSettings()
    out = config.out
    manifest = _without_test_part(read_manifest(config.manifest), echo)
    repeats = _divided(manifest, settings, seed=config.seed)
    notes = list(dict.fromkeys(note for one in repeats for note in check_folds(one)))
    for note in notes:
        echo(note)
    folds = [fold for repeat, one in enumerate(repeats, 1) for fold in _folds(repeat, one)]
    splits = [_split(fold, config, settings) for fold in folds]  # all are checked first
    refuse_other_model(out, own=CROSSVAL_FILE)
    with folder_lock(out, ".crossval.lock"):
        SettingsFile(out / CROSSVAL_FILE).continue_or_refuse(
            _recorded(config, settings, n_folds=repeats[0].table["fold"].nunique()),
            way_out="give another --out, or delete this one",
        )
        if (out / SEAL_FILE).is_file():
            return out
        for position, (fold, split) in enumerate(zip(folds, splits, strict=True), 1):
            echo(f"fold {position} of {len(folds)}: {fold.name}")
            # The start is the same for all.
            details = echo if position == 1 else logger.info
            _train_fold(fold, split, config, settings, track=track, echo=details)
        _pool(folds, config, notes)
    return out


def compare_by_folds(
    config: CompareConfig, settings: CrossvalSettings, *, track: Track = silent
) -> TrainedModels:
    """Cross-validate every model of a comparison on the same folds, below ``runs/``."""
    runs = {
        name: cross_validate(run_config(config, name), settings, track=track)
        for name in config.models
    }
    make_folder(config.out / "costs")
    costs = {
        name: measure_cost(min((run / "runs").iterdir()), config.out / "costs" / f"{name}.json")
        for name, run in runs.items()
    }
    return TrainedModels(runs, costs)


def _without_test_part(manifest: Manifest, echo: Callable[[str], None]) -> Manifest:
    is_test = (manifest.table["split"] == "test").fillna(value=False).to_numpy(dtype=np.bool_)
    if is_test.any():
        echo(
            f"{is_test.sum()} images of the test part are left out, so that they stay unseen; "
            "empty the column split to use them too"
        )
    return manifest.with_table(manifest.table[~is_test])


def _divided(manifest: Manifest, settings: CrossvalSettings, *, seed: int) -> list[Manifest]:
    """Return the manifest with the folds of each repeat."""
    given = manifest.table["fold"].dropna()
    if settings.folds is None and settings.group == "patient" and len(given):
        if settings.repeats > 1:
            raise ConfigError(
                "the manifest's column fold divides the cohort once, so it cannot be repeated; "
                "give --folds to divide it anew in each repeat"
            )
        return [manifest]
    n_folds = settings.folds or N_DEFAULT_FOLDS
    if settings.folds is None and settings.group not in {"patient", "image"}:
        n_folds = len(np.unique(group_rows(manifest, settings.group)))
        if settings.repeats > 1:
            raise ConfigError(
                f"one fold per {settings.group} divides the cohort in one way only; give --folds "
                "to repeat it"
            )
    return [
        assign_folds(manifest, n_folds=n_folds, by=settings.group, seed=seed + repeat)
        for repeat in range(settings.repeats)
    ]


def _recorded(
    config: TrainConfig, settings: CrossvalSettings, *, n_folds: int
) -> dict[str, object]:
    """Return what determines the results, and nothing else."""
    nested = settings.nested
    search_settings = None if nested is None else read_search_config(nested).model_dump(mode="json")
    return {
        "research_use_only": True,
        **asdict(settings),
        "folds": n_folds,
        "nested": search_settings,
        "training": config.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        "manifest_sha256": file_sha256(config.manifest),
    }


def _folds(repeat: int, manifest: Manifest) -> Iterator[_Fold]:
    for number in sorted(manifest.table["fold"].dropna().unique()):
        yield _Fold(repeat, int(number), manifest)


def _split(fold: _Fold, config: TrainConfig, settings: CrossvalSettings) -> Manifest:
    """Return the split of a fold, after checks that would stop its training."""
    needs_validation = config.needs_validation or settings.nested is not None
    split = fold_split(
        fold.manifest,
        fold.number,
        validation_share=settings.validation_share if needs_validation else 0.0,
        seed=config.seed + fold.repeat,
    )
    where = str(config.manifest)
    training = split.part("train").table
    for label_id in split.taxonomy.label_ids:
        if not (training[label_id] == 1).any():
            raise TrainingError(
                f"no training image of {fold.name} shows {label_id}, since too few patients have "
                "it for a training and the held-out parts; add images of it, or remove the label "
                "from the taxonomy",
                where=where,
            )
    leaks = find_leaks(split)
    if leaks and not config.allow_image_level_split:
        raise LeakageError(
            f"{fold.name}: {leaks[0]}; scores would be too high. Divide by patient, or set "
            "allow_image_level_split = true to cross-validate anyway",
            where=where,
        )
    if settings.normalize and split.table.get(NORMALIZED_FROM_COLUMN, pd.Series()).notna().any():
        raise StainError(
            "the images were normalised before, as the manifest records, so --normalize would "
            "leave them as they are; give the manifest of the originals, or leave --normalize out",
            where=where,
        )
    if settings.normalize and split.table["stain"].isna().all():
        raise StainError(
            "no image has a stain, so --normalize would leave them as they are; fill the column "
            "stain, or leave --normalize out",
            where=where,
        )
    split, _ = recheck_target_leaks(split)
    if target_leak_parts(split):
        raise LeakageError(
            f"the images were normalised to a target that {fold.name} holds out; give the images "
            "as they were before `glomerulab normalize`, and --normalize, which chooses the target "
            "inside each fold",
            where=where,
        )
    return split


def _train_fold(
    fold: _Fold,
    split: Manifest,
    config: TrainConfig,
    settings: CrossvalSettings,
    *,
    track: Track,
    echo: Callable[[str], None],
) -> None:
    run = config.out / "runs" / fold.name
    if check_seal(run):  # it is complete
        return
    path = make_folder(config.out / "folds") / f"{fold.name}.csv"
    write_manifest(split, path)
    if settings.normalize:
        split = read_manifest(path)
        targets = _training_targets(split.part("train"), seed=config.seed)
        where = config.out / "normalized" / fold.name
        with_slides = split.table["slide_id"].notna().all()
        path = normalize_manifest(
            split,
            targets,
            where,
            per="slide" if with_slides else "image",
            keep_others=True,
            track=track,
        ).path
    training = config.model_copy(update={"manifest": path, "out": run})
    if settings.nested is not None:
        training = _best_of_search(settings.nested, training, config.out / "searches" / fold.name)
    make_folder(run.parent)
    features = config.out / "features"
    train(training, resume=True, track=track, echo=echo, features=features)


def _training_targets(training: Manifest, *, seed: int) -> dict[str, StainReference]:
    """Return for each stain the mean of several training images of different patients."""
    originals = training.table[training.table["parent_id"].isna()]
    table = originals.sample(frac=1, random_state=seed)
    targets = {}
    for stain, rows in table.groupby("stain", observed=True):
        one_each = rows.loc[~rows["patient_id"].duplicated() | rows["patient_id"].isna()]
        others = rows.drop(one_each.index)
        fits: list[StainReference] = []
        for path in (
            training.folder / str(one) for one in pd.concat([one_each, others])["image_path"]
        ):
            found = try_fit(read_image(path), str(stain), source=str(path))
            if not isinstance(found, FitFailure):
                fits.append(found)
            if len(fits) == N_TARGET_IMAGES:
                break
        if not fits:
            raise StainError(
                f"no training image could be a target for {stain}; check the images with "
                "`glomerulab manifest check`, or leave --normalize out",
                where=training.location,
            )
        targets[str(stain)] = aggregate(fits, source=", ".join(one.source for one in fits))
    return targets


def _best_of_search(nested: Path, training: TrainConfig, out: Path) -> TrainConfig:
    """Choose the settings of one fold on its own training and validation parts."""
    make_folder(out)
    write_config(training, out / "train.toml")
    config = read_search_config(
        nested, {"train": out / "train.toml", "manifest": training.manifest, "out": out}
    )
    # A database of its own: in a shared one, the folds would be one search.
    best = read_config(search(config.model_copy(update={"storage": None})).best_config)
    return best.model_copy(update={"manifest": training.manifest, "out": training.out})


def _pool(folds: list[_Fold], config: TrainConfig, notes: list[str]) -> None:
    """Write the held-out predictions of each repeat, and what makes the folder a run."""
    out = config.out
    first = folds[0].manifest
    originals = first.table[first.table["parent_id"].isna() & first.table["fold"].notna()]
    evaluated = first.with_table(
        originals.assign(split=pd.array(["test"] * len(originals), dtype="string"))
    )
    write_manifest(evaluated, out / "manifest.csv")
    for repeat in sorted({fold.repeat for fold in folds}):
        tables = [
            _held_out_predictions(out / "runs" / fold.name, fold, config)
            for fold in folds
            if fold.repeat == repeat
        ]
        pooled = pd.concat(tables).set_index("image_id").loc[evaluated.table["image_id"]]
        write_predictions(pooled.reset_index(), out / repeat_file(repeat))
    write_config(config, out / "config.toml")
    environment = describe_environment(config, device="cpu") | {"warnings": notes}
    with atomic_write(out / "environment.json") as temporary:
        temporary.write_text(json.dumps(environment, indent=2), encoding="utf-8")
    write_seal(out)  # last, so that it marks a complete cross-validation


def _held_out_predictions(run: Path, fold: _Fold, config: TrainConfig) -> pd.DataFrame:
    table = read_predictions(
        run / "predictions.csv", fold.manifest.taxonomy, head=config.model.head
    )
    held_out = table[(table["split"] == "test").fillna(value=False)]
    return held_out.assign(fold=fold.number)
