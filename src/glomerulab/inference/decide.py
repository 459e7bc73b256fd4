"""Turn the output of a network into calls: calibrated probabilities, conformal sets, referrals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glomerulab.cases.calls import NOT_ASSESSED, called_labels
from glomerulab.cases.thresholds import conformal_states, measured_reasons, stain_reasons
from glomerulab.errors import PredictionsError
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.engines.base import probabilities_of
from glomerulab.inference.image_predictions import NOT_FINITE, ImagePrediction
from glomerulab.predictions import Head
from glomerulab.stain.fitting import StainStatus
from glomerulab.taxonomy import Taxonomy

__all__ = ["Decision", "decide"]

NO_TISSUE = {StainStatus.BLANK, StainStatus.BLACK, StainStatus.CONSTANT}
NORMALIZED = {StainStatus.NORMALIZED, StainStatus.SLIDE_STAINS}


@dataclass(frozen=True)
class Decision:
    """The call for one image."""

    probabilities: Mapping[str, float]
    """Calibrated, by label."""
    called: frozenset[str]
    """Empty if the image is not assessed, whatever its probabilities."""
    states: Mapping[str, str]
    """By label: ``present``, ``absent``, or ``either`` where the conformal set leaves it open."""
    reasons: tuple[str, ...]
    """Why a person must look at the image; empty if none must."""

    @property
    def is_assessed(self) -> bool:
        """Whether the image is taken for a glomerulus, so that it is called and counted."""
        return NOT_ASSESSED.isdisjoint(self.reasons)


def decide(
    predictions: Sequence[ImagePrediction],
    *,
    stains: Sequence[str | None],
    stain_statuses: Sequence[str | None],
    calibration: ModelCalibration,
    taxonomy: Taxonomy,
    head: Head,
) -> list[Decision]:
    """Calibrate, call and apply the quality gates.

    Parameters
    ----------
    predictions : sequence of ImagePrediction
        A distance or sharpness that is NaN refers the image.
    stains : sequence of str or None
        One per image; None where unknown.
    stain_statuses : sequence of str or None
        Result of the normalisation of each image; None where images are not normalised.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    list of Decision
        Under softmax the call is the likeliest class; under sigmoid every label from 0.5 on, and
        the likeliest of labels that exclude each other. An image without tissue, too small or too
        far from the training images is not called, and every label stays open.

    Raises
    ------
    PredictionsError
        If a logit is not finite.
    """
    logits = np.array([one.logits for one in predictions]).reshape(-1, len(taxonomy.label_ids))
    if not np.isfinite(logits).all():
        raise PredictionsError(NOT_FINITE)
    facts = calibration.facts
    uncalibrated = probabilities_of(logits, head)
    calibrated = probabilities_of(logits / facts.temperature, head)
    decisions = []
    for i, (image, probabilities) in enumerate(zip(predictions, calibrated, strict=True)):
        chances = dict(zip(taxonomy.label_ids, map(float, probabilities), strict=True))
        called = called_labels(chances, taxonomy, head)
        raw = dict(zip(taxonomy.label_ids, map(float, uncalibrated[i]), strict=True))
        states = conformal_states(raw, called, taxonomy, head, facts.conformal_threshold)
        gates = {
            "uncertain": "either" in states.values(),
            **measured_reasons(image.distance, image.sharpness, facts),
            **dict.fromkeys(image.reasons, True),
        }
        for reason, is_referred in _stain_gates(
            stains[i], stain_statuses[i], facts.stains_seen
        ).items():
            gates[reason] = gates.get(reason, False) or is_referred
        reasons = tuple(reason for reason, is_referred in gates.items() if is_referred)
        if not NOT_ASSESSED.isdisjoint(reasons):
            called, states = frozenset(), dict.fromkeys(taxonomy.label_ids, "either")
        decisions.append(
            Decision(
                chances,
                called,
                states,
                reasons,
            )
        )
    return decisions


def _stain_gates(
    stain: str | None, status: str | None, stains_seen: Mapping[str, int]
) -> dict[str, bool]:
    return {
        **stain_reasons(stain, stains_seen),
        "no_tissue": status in NO_TISSUE,
        "not_normalized": status is not None and status not in NO_TISSUE | NORMALIZED,
    }
