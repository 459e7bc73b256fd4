"""Train a segmenter, or cross-validate one: every group is held out and scored once."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from glomerulab.errors import ConfigError
from glomerulab.evaluation.segmentation import (
    FieldCounts,
    StructureScores,
    count_field,
    pooled_dice,
    score_structures,
    scores_summary,
    scores_table,
)
from glomerulab.inference.segmenter import Segmenter, TorchSegmenter
from glomerulab.inference.slide_segmenter import segment_image
from glomerulab.models.segmentation import load_segmenter, save_segmenter
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.messages import did_you_mean
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile, folder_lock
from glomerulab.runtime.sealing import (
    CROSSVAL_FILE,
    SEAL_FILE,
    SealedFolder,
    is_crossval,
    refuse_other_model,
    write_seal,
)
from glomerulab.structures.classes import own_structures
from glomerulab.structures.maps import StructureMap
from glomerulab.training.segmentation.config import SegmenterConfig, segmenter_values
from glomerulab.training.segmentation.fields import Field
from glomerulab.training.segmentation.run import (
    WITHOUT_EFFECT,
    Parts,
    divide,
    hold_out,
    remove_state,
    train_segmenter_run,
)
from glomerulab.training.segmentation.sets import FieldFailure, Fields, open_fields
from glomerulab.training.segmentation.start import check_start
from glomerulab.training.state import has_state

__all__ = [
    "TrainedSegmenter",
    "score_fields",
    "train_segmenter",
]

logger = logging.getLogger(__name__)

SCORES_FILE = "structure_scores.csv"
COUNTS_FILE = "field_scores.csv"


@dataclass(frozen=True)
class TrainedSegmenter:
    """A run folder, or that of a cross-validation, and what was not used."""

    run: Path
    scores: list[StructureScores]
    """On groups that the model never saw; empty if none was held out."""
    failures: list[FieldFailure]


def train_segmenter(
    config: SegmenterConfig,
    *,
    folds: int | None = None,
    resume: bool = False,
    track: Track = silent,
    echo: Callable[[str], None] = logger.info,
) -> TrainedSegmenter:
    """Train a segmenter on sets of images with masks.

    Parameters
    ----------
    folds : int, optional
        Cross-validate in this many folds of groups: ``runs/`` gets a run per fold, and the scores
        are those of all held-out images together.
    resume : bool, default False
        Continue the run in ``config.out``, if there is one; a cross-validation always continues.
    track, echo : callable, optional
        Receive the progress, and each line for the user.

    Raises
    ------
    GlomerulabError
        As `open_fields` and `train_segmenter_run`.
    OutputError
        If the folder holds another model, or a cross-validation with other settings.
    """
    if is_crossval(config.out) and folds is None:
        raise ConfigError(
            "this folder holds a cross-validation; give --folds to continue it, or another --out",
            where=str(config.out),
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a segmenter is trained by one process; start the command without a launcher"
        )
    if not (config.out / SEAL_FILE).is_file() and not has_state(config.out / "state"):
        check_start(config)
    fields = open_fields(config, track=track)
    for note in (*_unknown_structures(config), *fields.notes):
        echo(f"note: {note}")
    if fields.failures:
        first, n_all = fields.failures[0], len(fields.failures) + len(fields.usable)
        echo(
            f"{len(fields.failures)} of {n_all} images cannot be used; the first: "
            f"{first.set_name}/{first.name}: {first.reason}"
        )
    if folds is None:
        parts = hold_out(fields.usable, config.held_out_share, seed=config.seed)
        counts = _train_and_score(config, parts, fields, resume=resume, track=track, echo=echo)
        return TrainedSegmenter(config.out, score_structures(counts), fields.failures)
    fold_of = divide(fields.usable, folds, seed=config.seed)
    refuse_other_model(config.out, own=CROSSVAL_FILE)
    with folder_lock(config.out, ".crossval.lock"):
        values = segmenter_values(config)
        recorded = {key: value for key, value in values.items() if key not in WITHOUT_EFFECT}
        SettingsFile(config.out / CROSSVAL_FILE).continue_or_refuse(
            {"folds": folds, "repeats": 1, "kind": "segmenter", "config": recorded},
            way_out="give another --out, or delete this one",
        )
        counts = []
        for fold in range(folds):
            echo(f"fold {fold + 1} of {folds}")
            one = config.model_copy(update={"out": config.out / "runs" / f"fold-{fold}"})
            parts = Parts(
                [f for f in fields.usable if fold_of[f.facts.group] != fold],
                [f for f in fields.usable if fold_of[f.facts.group] == fold],
            )
            counts += _train_and_score(one, parts, fields, resume=True, track=track, echo=echo)
        if not (config.out / SEAL_FILE).is_file():
            _write_scores(counts, config.out)
            write_seal(config.out)
    return TrainedSegmenter(config.out, score_structures(counts), fields.failures)


def score_fields(
    segmenter: Segmenter, fields: Sequence[Field], *, track: Track = silent
) -> list[FieldCounts]:
    """Segment labelled fields at the segmenter's mpp as slides are, and compare with the labels.

    Its structures must be those of the fields.
    """
    found = []
    for one in track(fields, "Scoring", len(fields)):
        for window in one.windows():
            pixels, labels = one.read_window(window)
            proposed = segment_image(pixels, segmenter)
            truth = StructureMap(
                proposed.frame, labels.present, labels.present, labels.present, labels.core
            )
            found += count_field(
                truth,
                proposed,
                labels.known,
                one.vocabulary.knows,
                field=f"{one.facts.set_name}/{one.facts.name}",
                group=one.facts.group,
                stain=one.facts.stain,
            )
    return found


def _unknown_structures(config: SegmenterConfig) -> Iterator[str]:
    for name, similar in own_structures(config.ordered_structures()).items():
        yield (
            f"{name!r} is a structure of your own, an area whose objects are not counted"
            f"{did_you_mean(name, similar)}"
        )


def _train_and_score(
    config: SegmenterConfig,
    parts: Parts,
    fields: Fields,
    *,
    resume: bool,
    track: Track,
    echo: Callable[[str], None],
) -> list[FieldCounts]:
    run = train_segmenter_run(config, parts, fields, resume=resume, track=track, echo=echo)
    if (run / SEAL_FILE).is_file():
        SealedFolder(run)
        return _read_counts(run)
    counts: list[FieldCounts] = []
    if parts.held_out:
        files = SealedFolder(run, rewriting="")  # not sealed yet
        counts = score_fields(TorchSegmenter(files), parts.held_out, track=track)
        _write_scores(counts, run)
        network, card = load_segmenter(files)
        scores = score_structures(counts)
        scored = {
            "test_summary": scores_summary(scores, "en"),
            "test_summary_zh": scores_summary(scores, "zh"),
            "dice": pooled_dice(scores),
        }
        save_segmenter(run / "checkpoint", network.state_dict(), card.model_copy(update=scored))
    write_seal(run)
    remove_state(run)
    return counts


def _write_scores(counts: Sequence[FieldCounts], folder: Path) -> None:
    tables = {
        COUNTS_FILE: pd.DataFrame([asdict(one) for one in counts]),
        SCORES_FILE: scores_table(score_structures(counts)),
    }
    for name, table in tables.items():
        with atomic_write(folder / name) as temporary:
            table.to_csv(temporary, index=False)


def _read_counts(run: Path) -> list[FieldCounts]:
    if not (run / COUNTS_FILE).is_file():
        return []
    table = pd.read_csv(run / COUNTS_FILE, dtype={"field": str, "group": str, "stain": str})
    rows = table.fillna({"stain": ""}).to_dict("records")
    return [FieldCounts(**{str(key): value for key, value in row.items()}) for row in rows]
