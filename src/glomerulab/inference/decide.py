"""From a network's answers to calls: calibrated, with what cannot be ruled out, and referrals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.eval_set import DECISION_THRESHOLD
from glomerulab.inference.calibration import Gates
from glomerulab.inference.engines.base import probabilities_of
from glomerulab.predictions import Head
from glomerulab.stain.fitting import StainStatus
from glomerulab.taxonomy import Taxonomy

__all__ = ["NOT_FINITE", "Decision", "decide"]

NOT_FINITE = (
    "the network's answer is not a finite number, so nothing can be said of the image; if this "
    "happens often, the weights are damaged: train or export the model again"
)

NO_TISSUE = {StainStatus.BLANK, StainStatus.NOT_TISSUE, StainStatus.BLACK, StainStatus.CONSTANT}
ROUNDING = 1e-5
"""Thresholds are answers to validation images: an image that stands on one must not fall to either
side by the rounding of the engine that runs the network. Sets only become larger by it."""


@dataclass(frozen=True)
class Decision:
    """What is said of one image."""

    probabilities: Mapping[str, float]
    called: frozenset[str]
    states: Mapping[str, str]
    reasons: tuple[str, ...]


def decide(
    logits: npt.NDArray[np.floating],
    distances: Sequence[float],
    sharpnesses: Sequence[float],
    *,
    stains: Sequence[str | None],
    stain_statuses: Sequence[str | None],
    gates: Gates,
    taxonomy: Taxonomy,
    head: Head,
) -> list[Decision]:
    """Turn answers into calls.

    Parameters
    ----------
    logits : ndarray of float, shape (n, K)
    distances, sharpnesses : sequence of float
        Of each image.
    stains : sequence of str or None
        Of each image; None where it is unknown.
    stain_statuses : sequence of str or None
        What became of each image in normalisation; None where the run's images were not normalised.
    gates : Gates
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}

    Returns
    -------
    list of Decision
        Under softmax the call is the likeliest class; under sigmoid every label from 0.5 on, of
        labels that exclude each other the likeliest.

    Raises
    ------
    PredictionsError
        If an answer is not finite: nothing can be said of such an image.
    """
    if not np.isfinite(logits).all():
        raise PredictionsError(NOT_FINITE)
    raw = probabilities_of(logits, head)
    calibrated = probabilities_of(logits / gates.facts.temperature, head)
    found = []
    for place, chances in enumerate(calibrated):
        called = _called(chances, taxonomy, head)
        states = _states(raw[place], called, taxonomy, head, gates.facts.conformal_threshold)
        reasons = [
            *(["uncertain"] if "either" in states.values() else []),
            *(
                ["out_of_focus"]
                if not sharpnesses[place] >= gates.facts.sharpness_threshold  # NaN is referred
                else []
            ),
            *(
                ["out_of_distribution"]
                if not distances[place]
                <= gates.facts.distance_threshold * (1 + ROUNDING)  # NaN is referred
                else []
            ),
            *_stain_reasons(stains[place], stain_statuses[place], gates),
        ]
        found.append(
            Decision(
                dict(zip(taxonomy.label_ids, map(float, chances), strict=True)),
                called,
                states,
                tuple(reasons),
            )
        )
    return found


def _called(chances: npt.NDArray[np.float64], taxonomy: Taxonomy, head: Head) -> frozenset[str]:
    if head == "softmax":
        return frozenset({taxonomy.label_ids[int(np.argmax(chances))]})
    called: list[str] = []
    for place in np.argsort(-chances, kind="stable"):
        key = taxonomy.label_ids[int(place)]
        fits = not taxonomy.conflicts(dict.fromkeys([*called, key], 1))
        if chances[place] >= DECISION_THRESHOLD and fits:
            called.append(key)
    return frozenset(called)


def _states(
    raw: npt.NDArray[np.float64],
    called: frozenset[str],
    taxonomy: Taxonomy,
    head: Head,
    threshold: float,
) -> dict[str, str]:
    """Say of each label whether the conformal set settles it."""
    keys = taxonomy.label_ids
    if head == "softmax":
        inside = {key for key, p in zip(keys, raw, strict=True) if p >= threshold - ROUNDING}
        if not inside:  # as strange as hardly any validation image: nothing is settled
            return dict.fromkeys(keys, "either")
        inside |= called
        alone = "present" if len(inside) == 1 else "either"
        return {key: alone if key in inside else "absent" for key in keys}
    states = {}
    for key, p in zip(keys, raw, strict=True):
        may_be, may_not = p >= threshold - ROUNDING, 1 - p >= threshold - ROUNDING
        settled = "present" if may_be else "absent"
        states[key] = "either" if may_be == may_not else settled
    present = {key: int(state == "present") for key, state in states.items()}
    # What cannot stand together is not settled, however sure the model is of each.
    torn = {key for pair in taxonomy.conflicts(present) for key in pair}
    return states | dict.fromkeys(torn, "either")


def _stain_reasons(stain: str | None, status: str | None, gates: Gates) -> list[str]:
    reasons = []
    if stain is None:
        reasons.append("stain_unknown")
    elif stain not in gates.facts.stains_seen:
        reasons.append("stain_unseen")
    if status in NO_TISSUE:
        reasons.append("no_tissue")
    elif status is not None and status not in {
        StainStatus.NORMALIZED,
        StainStatus.SLIDE_STAINS,
    }:
        reasons.append("not_normalized")
    return reasons
