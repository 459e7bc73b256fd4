"""Calls of glomeruli: what the model called, which label sets remain possible, and why.

`inference` writes calls and `reports` reads them. This module knows no models, images or files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from glomerulab.geometry import Box, Point
from glomerulab.predictions import DECISION_THRESHOLD, Head
from glomerulab.taxonomy import Taxonomy

__all__ = ["NOT_ASSESSED", "REASONS", "GlomerulusCall", "LabelSet", "called_labels"]

LabelSet = frozenset[str] | None
"""Ids of the labels that are present; None: no glomerulus, or not assessed as one."""

LabelState = str
"""``present``, ``absent``, or ``either`` where the model is uncertain."""

REASONS: Mapping[str, str] = {
    "uncertain": "the model is uncertain between labels",
    "out_of_focus": "the image is less sharp than almost all the model was trained on",
    "out_of_distribution": "the image is unlike those the model was trained on",
    "no_tissue": "the image shows almost no tissue",
    "too_small": "the image is too small to show a glomerulus",
    "no_glomerulus": "the image is so unlike those the model was trained on that it is not taken "
    "for a glomerulus",
    "other_scale": "its scale is far from that of the images the model was trained on",
    "stain_unseen": "the model was trained on no image of this stain",
    "stain_unknown": "the stain is not stated, so the model may be unfamiliar with it",
    "not_normalized": "its colours could not be brought to the model's stain reference",
}
"""Why a glomerulus is referred for review, by the keys of the predictions table."""

NOT_ASSESSED = frozenset({"no_tissue", "too_small", "no_glomerulus"})
"""Reasons for which an image is neither called nor counted."""
MAYBE_NO_GLOMERULUS = NOT_ASSESSED | {"out_of_distribution"}
UNTRUSTED = frozenset(REASONS) - {"uncertain"}
MAX_LABEL_SETS = 4096
"""Of one image; above it they are not enumerated."""
MAX_PAIRS = 100_000
"""Of label sets of two sections that are joined pair by pair."""


@dataclass(frozen=True)
class GlomerulusCall:
    """The prediction for one image of a glomerulus."""

    image_id: str
    slide_id: str
    patient_id: str | None
    region_id: str | None
    """Name in the region file; equal on serial sections for the same glomerulus."""
    stain: str | None
    probabilities: Mapping[str, float]
    """Calibrated, by label id."""
    called: LabelSet
    """None if the image is not assessed as a glomerulus."""
    states: Mapping[str, LabelState]
    """By label id; from the conformal set."""
    reasons: tuple[str, ...] = ()
    """Keys of `REASONS`; empty if no review is needed."""
    box: Box | None = None
    """The crop, in level-0 pixels."""
    outline: tuple[Point, ...] = ()
    """The region, in level-0 pixels; empty for crops without a slide."""
    image_path: str | None = None
    """Of the crop before normalization, relative to the predictions folder."""
    saliency_path: str | None = None
    """Of the saliency picture, likewise; None if none was made."""
    is_proposed: bool = False
    """Whether a detector proposed the region and no person drew it."""
    source_id: str | None = None
    """Id of the region in the file that it was read from, such as QuPath's UUID."""
    source_class: str | None = None
    """Its class in that file."""
    distance: float | None = None
    """In feature space, see `CalibrationFacts`; NaN if not measured, None if not in the table."""
    sharpness: float | None = None
    """Likewise."""
    mpp: float | None = None
    """Micrometres per pixel of the crop, likewise."""

    @property
    def is_referred(self) -> bool:
        """Whether a person must review it."""
        return bool(self.reasons)


@dataclass(frozen=True)
class CallUncertainty:
    """The possible label sets of one image, in factored form."""

    called: LabelSet
    certain: frozenset[str]
    """Labels of every possible set."""
    uncertain: frozenset[str]
    """Labels of some: alone under softmax, else in every combination that breaks no exclusion."""
    is_single_label: bool
    may_be_no_glomerulus: bool
    is_corrected: bool = False
    """Whether a person's labels are the only possible set."""

    @classmethod
    def corrected(cls, labels: LabelSet) -> "CallUncertainty":
        """Return a person's labels without any uncertainty."""
        empty = frozenset[str]()
        return cls(
            labels,
            empty,
            empty,
            is_single_label=False,
            may_be_no_glomerulus=labels is None,
            is_corrected=True,
        )


def called_labels(
    probabilities: Mapping[str, float], taxonomy: Taxonomy, head: Head
) -> frozenset[str]:
    """Return the labels that probabilities call.

    Under softmax the likeliest class; under sigmoid every label from 0.5 on, and the likeliest of
    labels that exclude each other.
    """
    if head == "softmax":
        return frozenset({max(probabilities, key=lambda key: probabilities[key])})
    called: list[str] = []
    for label in sorted(probabilities, key=lambda key: -probabilities[key]):
        is_compatible = not taxonomy.conflicts(dict.fromkeys([*called, label], 1))
        if probabilities[label] >= DECISION_THRESHOLD and is_compatible:
            called.append(label)
    return frozenset(called)


def call_uncertainty(call: GlomerulusCall, taxonomy: Taxonomy, *, head: Head) -> CallUncertainty:
    """Return the labels that a call leaves open.

    An image that the model cannot be trusted on (out of focus, unseen stain) may have any label;
    one unlike the training images may be no glomerulus. Labels that exclude each other are
    uncertain, however sure the model is of each. Under softmax each set is one label.
    """
    if UNTRUSTED.intersection(call.reasons):
        uncertain, certain = frozenset(taxonomy.label_ids), frozenset[str]()
    else:
        uncertain = frozenset(key for key, state in call.states.items() if state == "either")
        certain = frozenset(key for key, state in call.states.items() if state == "present")
        conflicting = {
            key for pair in taxonomy.conflicts(dict.fromkeys(certain, 1)) for key in pair
        }
        uncertain, certain = uncertain | conflicting, certain - conflicting
    may_be_no_glomerulus = bool(MAYBE_NO_GLOMERULUS.intersection(call.reasons))
    return CallUncertainty(call.called, certain, uncertain, head == "softmax", may_be_no_glomerulus)


def possible_label_sets(call: CallUncertainty, taxonomy: Taxonomy) -> frozenset[LabelSet] | None:
    """Return every label set that cannot be ruled out, the call included.

    None: more than `MAX_LABEL_SETS`.
    """
    if call.is_corrected:
        return frozenset({call.called})
    found: set[LabelSet] = {call.called}
    if call.is_single_label:
        found |= {frozenset({label_id}) for label_id in call.uncertain | call.certain}
    else:
        combined = _combinations(call.certain, call.uncertain, taxonomy)
        if combined is None:
            return None
        found.update(combined)
    if call.may_be_no_glomerulus:
        found.add(None)
    return frozenset(found)


def merge_label_sets(
    sections: Iterable[frozenset[LabelSet] | None], taxonomy: Taxonomy
) -> frozenset[LabelSet] | None:
    """Join the possible label sets of one glomerulus on several sections.

    A lesion on one section is a lesion of the glomerulus. A label that excludes what another
    section shows (such as normal, beside a crescent) is dropped; where two exclude each other,
    either is possible. A section that may show no glomerulus leaves the decision to the others.
    """
    joined: frozenset[LabelSet] = frozenset({None})
    for label_sets in sections:
        if label_sets is None or len(joined) * len(label_sets) > MAX_PAIRS:
            return None
        joined = frozenset(
            union
            for first in joined
            for second in label_sets
            for union in _unions(first, second, taxonomy)
        )
    return joined


def _unions(first: LabelSet, second: LabelSet, taxonomy: Taxonomy) -> Iterable[LabelSet]:
    if first is None and second is None:
        return (None,)
    union = (first or frozenset()) | (second or frozenset())
    excluding = [
        label.id
        for label in taxonomy.labels
        if label.id in union and union.intersection(label.excludes)
    ]
    kept = union.difference(excluding)
    if kept or not union:
        return (frozenset(kept),)
    return tuple(frozenset({label_id}) for label_id in excluding)


@lru_cache(maxsize=4096)
def _combinations(
    certain: frozenset[str], uncertain: frozenset[str], taxonomy: Taxonomy
) -> tuple[frozenset[str], ...] | None:
    """Return every choice of the uncertain labels that breaks no exclusion; None: too many."""
    found = [] if taxonomy.conflicts(dict.fromkeys(certain, 1)) else [certain]
    for key in taxonomy.label_ids:
        if key not in uncertain:
            continue
        excluded = _excluded(taxonomy)[key]
        found += [labels | {key} for labels in found if excluded.isdisjoint(labels)]
        if len(found) > MAX_LABEL_SETS:
            return None
    return tuple(found)


@lru_cache(maxsize=64)
def _excluded(taxonomy: Taxonomy) -> Mapping[str, frozenset[str]]:
    """Return the labels that each label excludes, whichever of the two states it."""
    keys = taxonomy.label_ids
    return {
        key: frozenset(other for other, excludes in zip(keys, row, strict=True) if excludes)
        for key, row in zip(keys, taxonomy.exclusions, strict=True)
    }
