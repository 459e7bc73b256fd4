"""What follows from probabilities and measures of an image by the thresholds of its model.

`inference` decides by these functions, and a case folder is checked by them when it is read.
"""

from collections.abc import Mapping
from typing import Protocol

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "Thresholds",
    "conformal_states",
    "follows_thresholds",
    "measured_reasons",
    "stain_reasons",
]

FAR = 1.5
"""Times the distance threshold beyond which an image is not taken for a glomerulus; see what it
sets aside in the benchmarks, "What is no glomerulus"."""
TOLERANCE = 1e-5
"""Thresholds are outputs for validation images: rounding by another engine must not move an image
that lies exactly on one to the other side. Conformal sets can only become larger by it."""
PROBABILITY_MARGIN = 1e-3
MEASURE_MARGIN = 1e-4
"""Of numbers in a table, where measures have four decimals and a spreadsheet may cut others."""


class _Gates(Protocol):
    """Of `glomerulab.cases.case_folder.CalibrationFacts`."""

    @property
    def distance_threshold(self) -> float:
        """Above it an image is out of distribution."""

    @property
    def sharpness_threshold(self) -> float:
        """Below it an image is out of focus."""


class Thresholds(_Gates, Protocol):
    """Of `glomerulab.cases.case_folder.ModelFacts`."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels of the model."""

    @property
    def head(self) -> Head:
        """Softmax or sigmoid."""

    @property
    def temperature(self) -> float:
        """By which logits are divided."""

    @property
    def conformal_threshold(self) -> float:
        """Of probabilities before the temperature."""

    @property
    def stains_seen(self) -> Mapping[str, int]:
        """Training images by stain."""


def conformal_states(
    probabilities: Mapping[str, float],
    called: frozenset[str],
    taxonomy: Taxonomy,
    head: Head,
    threshold: float,
) -> dict[str, str]:
    """Return for each label whether the conformal set holds its presence, its absence, or both.

    Parameters
    ----------
    probabilities : mapping
        By label, before the temperature.
    """
    labels = taxonomy.label_ids
    if head == "softmax":
        inside = {label for label in labels if probabilities[label] >= threshold - TOLERANCE}
        if not inside:  # less typical than nearly every validation image: every label stays open
            return dict.fromkeys(labels, "either")
        inside |= called
        state = "present" if len(inside) == 1 else "either"
        return {label: state if label in inside else "absent" for label in labels}
    states = {}
    for label in labels:
        p = probabilities[label]
        may_be, may_not = p >= threshold - TOLERANCE, 1 - p >= threshold - TOLERANCE
        certain = "present" if may_be else "absent"
        states[label] = "either" if may_be == may_not else certain
    present = {label: int(state == "present") for label, state in states.items()}
    # Labels that exclude each other stay open, however sure the model is of each.
    conflicting = {label for pair in taxonomy.conflicts(present) for label in pair}
    return states | dict.fromkeys(conflicting, "either")


def measured_reasons(distance: float, sharpness: float, facts: _Gates) -> dict[str, bool]:
    """Return whether an image is referred for its distance or its sharpness; NaN is."""
    return {
        "out_of_focus": not sharpness >= facts.sharpness_threshold,
        "out_of_distribution": not distance <= facts.distance_threshold * (1 + TOLERANCE),
        "no_glomerulus": distance > facts.distance_threshold * FAR,
    }


def stain_reasons(stain: str | None, stains_seen: Mapping[str, int]) -> dict[str, bool]:
    """Return whether an image is referred for its stain."""
    return {
        "stain_unknown": stain is None,
        "stain_unseen": stain is not None and stain not in stains_seen,
    }


def follows_thresholds(call: GlomerulusCall, model: Thresholds) -> bool:
    """Return whether states and reasons are those of an image's probabilities and measures.

    True for a table without measures, which no `predict` wrote. Reasons that other facts give, such
    as the normalisation, are not checked.
    """
    if call.distance is None or call.sharpness is None:
        return True
    expected = stain_reasons(call.stain, model.stains_seen)
    if call.called is None:
        has_states = set(call.states.values()) == {"either"}
    else:
        has_states = _has_states(call, call.called, model)
        expected["uncertain"] = "either" in call.states.values()
    measured = [
        measured_reasons(call.distance + side, call.sharpness + side, model)
        for side in (-MEASURE_MARGIN, 0.0, MEASURE_MARGIN)
    ]
    return (
        has_states
        and all((key in call.reasons) == holds for key, holds in expected.items())
        and all((key in call.reasons) in {one[key] for one in measured} for key in measured[0])
    )


def _has_states(call: GlomerulusCall, called: frozenset[str], model: Thresholds) -> bool:
    uncalibrated = _uncalibrated(call.probabilities, model)
    possible = [
        conformal_states(
            uncalibrated, called, model.taxonomy, model.head, model.conformal_threshold + side
        )
        for side in (-PROBABILITY_MARGIN, 0.0, PROBABILITY_MARGIN)
    ]
    return all(state in {one[key] for one in possible} for key, state in call.states.items())


def _uncalibrated(probabilities: Mapping[str, float], model: Thresholds) -> dict[str, float]:
    """Return the probabilities before the temperature."""
    powers = {key: p**model.temperature for key, p in probabilities.items()}
    if model.head == "softmax":
        total = sum(powers.values())
        return {key: power / total for key, power in powers.items()}
    others = {key: (1 - p) ** model.temperature for key, p in probabilities.items()}
    return {key: power / (power + others[key]) for key, power in powers.items()}
