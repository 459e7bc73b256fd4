"""Scores of a segmenter on labelled fields: Dice by structure and stain, and objects found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from glomerulab.evaluation.intervals import (
    MIN_RESAMPLES,
    Interval,
    patient_weights,
    percentile_interval,
    unseen_share,
)
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.structures.classes import structure
from glomerulab.structures.instances import StructureObject, find_objects
from glomerulab.structures.maps import Bits, StructureMap

__all__ = [
    "FieldCounts",
    "StructureScores",
    "count_field",
    "pooled_dice",
    "score_structures",
    "scores_summary",
    "scores_table",
]

MIN_IOU = 0.5
ALL = "all"
"""In place of a stain: fields of all stains."""


@dataclass(frozen=True, slots=True)
class FieldCounts:
    """Pixels and objects of one structure on one field."""

    field: str
    group: str
    stain: str
    structure: str
    n_true: int
    """Known pixels of the structure."""
    n_proposed: int
    """Known pixels that the segmenter gives to it."""
    n_shared: int
    objects: int = 0
    """0 for areas, and where not all objects are known."""
    objects_proposed: int = 0
    objects_found: int = 0
    """Matched one to one with an intersection over union of at least 0.5."""


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """Recall and precision of the objects of a structure.

    Each end of a 95 % interval is the wider of the bootstrap over groups and Wilson's interval over
    objects; where every object is found, the rule of three over groups is the former.
    """

    n_true: int
    n_proposed: int
    n_found: int
    recall: float
    """NaN without true objects."""
    precision: float
    """NaN without proposed ones."""
    recall_interval: Interval
    precision_interval: Interval


@dataclass(frozen=True, slots=True)
class StructureScores:
    """Scores of one structure on fields of one stain, or of all."""

    structure: str
    stain: str
    n_fields: int
    n_groups: int
    dice: float
    """Over the pixels of all fields together; NaN where there are none."""
    dice_interval: Interval
    """95 %, over groups."""
    objects: ObjectScores | None
    """None for areas."""


def count_field(
    truth: StructureMap,
    proposed: StructureMap,
    known: Bits,
    knows: Sequence[str],
    *,
    field: str,
    group: str,
    stain: str | None,
) -> list[FieldCounts]:
    """Compare two maps of one field.

    Parameters
    ----------
    known : ndarray of uint16, shape (H, W)
        Bits of the structures that are known at each pixel; others are not counted.
    knows : sequence of str
        Structures that the truth marks wherever they are; only of these Dice is defined.
    """
    found = []
    for k, name in enumerate(truth.frame.structures):
        if name not in knows:
            continue
        is_known, is_true, is_proposed = (
            (layer >> k) & 1 == 1 for layer in (known, truth.likely, proposed.likely)
        )
        counts = FieldCounts(
            field,
            group,
            stain or "",
            name,
            int((is_true & is_known).sum()),
            int((is_proposed & is_known).sum()),
            int((is_true & is_proposed & is_known).sum()),
        )
        if structure(name).kind == "object":
            true_objects, objects = (
                [one for one in find_objects(of, [name]) if _is_on_known(one, is_known)]
                for of in (truth, proposed)
            )
            counts = FieldCounts(
                **asdict(counts)
                | {
                    "objects": len(true_objects),
                    "objects_proposed": len(objects),
                    "objects_found": _n_matched(objects, true_objects),
                }
            )
        found.append(counts)
    return found


def score_structures(counts: Sequence[FieldCounts], *, seed: int = 0) -> list[StructureScores]:
    """Pool the counts of fields by structure, over all stains and for each of several."""
    found = []
    for name in dict.fromkeys(one.structure for one in counts):
        mine = [one for one in counts if one.structure == name]
        stains = sorted({one.stain for one in mine} - {""})
        found.append(_score(mine, name, ALL, seed))
        if len(stains) > 1:
            found += [_score([o for o in mine if o.stain == s], name, s, seed) for s in stains]
    return found


def scores_table(scores: Sequence[StructureScores]) -> pd.DataFrame:
    """Return the scores as a table, one row per structure and stain; numbers or missing."""
    rows = []
    for one in scores:
        row: dict[str, object] = {
            "structure": one.structure,
            "stain": one.stain,
            "n_fields": one.n_fields,
            "n_groups": one.n_groups,
            "dice": one.dice,
            "dice_low": one.dice_interval.low,
            "dice_high": one.dice_interval.high,
        }
        if (found := one.objects) is not None:
            row |= {
                "n_objects": found.n_true,
                "n_proposed": found.n_proposed,
                "n_found": found.n_found,
                "recall": found.recall,
                "recall_low": found.recall_interval.low,
                "recall_high": found.recall_interval.high,
                "precision": found.precision,
                "precision_low": found.precision_interval.low,
                "precision_high": found.precision_interval.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def pooled_dice(scores: Sequence[StructureScores]) -> dict[str, float]:
    """Return the Dice of each structure over all stains, of those that have one."""
    return {
        one.structure: one.dice for one in scores if one.stain == ALL and not np.isnan(one.dice)
    }


def scores_summary(scores: Sequence[StructureScores], language: Language) -> str:
    """Summarise the scores over all stains in a few sentences; empty without any."""
    pooled = [one for one in scores if one.stain == ALL and not np.isnan(one.dice)]
    if not pooled:
        return ""
    parts = [
        translate(
            "{structure} Dice {dice} (95 % interval {low} to {high})",
            language,
            structure=structure(one.structure).name_in(language),
            dice=f"{one.dice:.2f}",
            low=f"{one.dice_interval.low:.2f}",
            high=f"{one.dice_interval.high:.2f}",
        )
        for one in pooled
    ]
    parts += [
        translate(
            "{structure}: {n_found} of {n_truth} found, {n_right} of {n_proposed} proposals right",
            language,
            structure=structure(one.structure).name_in(language),
            n_found=one.objects.n_found,
            n_right=one.objects.n_found,
            n_truth=one.objects.n_true,
            n_proposed=one.objects.n_proposed,
        )
        for one in pooled
        if one.objects is not None
    ]
    return translate(
        "On images that the segmenter never saw (groups: {n_groups}): {parts}; right is an overlap "
        "(IoU) of at least 0.5.",
        language,
        n_groups=max(one.n_groups for one in pooled),
        parts="; ".join(parts),
    )


def _score(counts: Sequence[FieldCounts], name: str, stain: str, seed: int) -> StructureScores:
    groups = sorted({one.group for one in counts})
    sums = np.zeros((len(groups), 5))
    for one in counts:
        sums[groups.index(one.group)] += (
            2 * one.n_shared,
            one.n_true + one.n_proposed,
            one.objects,
            one.objects_proposed,
            one.objects_found,
        )
    weights = patient_weights(len(groups), n_resamples=MIN_RESAMPLES, seed=seed)
    drawn = weights @ sums
    dice, dice_interval = _ratio(sums, drawn, 0, 1)
    objects = None
    if structure(name).kind == "object":
        recall, over_groups = _ratio(sums, drawn, 4, 2)
        precision, precision_over_groups = _ratio(sums, drawn, 4, 3)
        n_true, n_proposed, n_found = (int(n) for n in sums[:, 2:].sum(axis=0))
        objects = ObjectScores(
            n_true,
            n_proposed,
            n_found,
            recall,
            precision,
            _widened(over_groups, n_found, n_true),
            _widened(precision_over_groups, n_found, n_proposed),
        )
    return StructureScores(name, stain, len(counts), len(groups), dice, dice_interval, objects)


def _ratio(
    sums: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], over: int, under: int
) -> tuple[float, Interval]:
    """Return the ratio of two columns of sums by group, and its interval over resamples."""
    total = sums.sum(axis=0)
    resampled = np.divide(
        drawn[:, over],
        drawn[:, under],
        out=np.full(len(drawn), np.nan),
        where=drawn[:, under] > 0,
    )
    value = float(total[over] / total[under]) if total[under] else float("nan")
    return value, percentile_interval(resampled, unseen=unseen_share(len(sums)))


def _widened(over_groups: Interval, n_hits: int, n: int) -> Interval:
    """Widen the interval over groups to Wilson's."""
    if not n:
        return over_groups
    wilson = binomtest(n_hits, n).proportion_ci(method="wilson")
    low, high = np.fmin(over_groups.low, wilson.low), np.fmax(over_groups.high, wilson.high)
    return Interval(float(low), float(high), over_groups.defined_share, over_groups.method)


def _is_on_known(one: StructureObject, is_known: npt.NDArray[np.bool_]) -> bool:
    """Return whether most of an object lies where the truth is known."""
    height, width = one.mask.shape
    cut = is_known[one.top : one.top + height, one.left : one.left + width]
    return bool(cut[one.mask].mean() >= 0.5)


def _n_matched(proposed: Sequence[StructureObject], truth: Sequence[StructureObject]) -> int:
    """Return how many objects are matched; no two overlap, so that 0.5 leaves one partner each."""
    return sum(any(_iou(one, other) >= MIN_IOU for other in truth) for one in proposed)


def _iou(one: StructureObject, other: StructureObject) -> float:
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.mask.shape[0], other.top + other.mask.shape[0])
    right = min(one.left + one.mask.shape[1], other.left + other.mask.shape[1])
    if top >= bottom or left >= right:
        return 0.0
    first, second = (
        each.mask[top - each.top : bottom - each.top, left - each.left : right - each.left]
        for each in (one, other)
    )
    shared = int((first & second).sum())
    return shared / (int(one.mask.sum()) + int(other.mask.sum()) - shared)
