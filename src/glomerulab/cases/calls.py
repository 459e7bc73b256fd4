"""What was said of each glomerulus of a case: the call, what could not be ruled out, and why.

The word that `inference` writes and `report` reads. A reading is a set of labels that a glomerulus
may truly carry, or None where it may be no glomerulus at all. It must not know of models, images
or files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from glomerulab.geometry import Box, Point
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "REASONS",
    "CallUncertainty",
    "GlomerulusCall",
    "LabelSet",
    "LabelState",
    "call_uncertainty",
    "merge_label_sets",
    "possible_label_sets",
]

LabelSet = frozenset[str] | None
"""Ids of the labels that are present; None: this is no glomerulus."""

LabelState = str
"""``present``, ``absent``, or ``either`` where the model cannot tell."""

REASONS: Mapping[str, str] = {
    "uncertain": "the model cannot settle on one answer",
    "out_of_focus": "the image is less sharp than almost all the model was trained on",
    "out_of_distribution": "the image is unlike those the model was trained on",
    "no_tissue": "the image shows next to no tissue",
    "stain_unseen": "the model was trained on no image of this stain",
    "stain_unknown": "nobody said which stain it is, so the model may be strange to it",
    "not_normalized": "its colours could not be brought to the model's stain reference",
}
"""Why a glomerulus is referred to a human, by the word that stands in the table."""

NOT_A_GLOMERULUS = frozenset({"out_of_distribution", "no_tissue"})
MAX_READINGS = 4096
"""Of one image; with more of them they are not told one by one."""
MAX_PAIRS = 100_000
"""Of readings of two sections that are joined one by one."""
UNTRUSTED = frozenset(REASONS) - {"uncertain"}


@dataclass(frozen=True)
class GlomerulusCall:
    """One image of a glomerulus, and all that the model said of it."""

    image_id: str
    slide_id: str
    patient_id: str | None
    region_id: str | None
    """What the region file calls it; the same on serial sections if it is the same glomerulus."""
    stain: str | None
    probabilities: Mapping[str, float]
    """Calibrated, by label id."""
    called: frozenset[str]
    states: Mapping[str, LabelState]
    """By label id; from the conformal set."""
    reasons: tuple[str, ...] = ()
    """Keys of `REASONS`; empty if nobody needs to look."""
    box: Box | None = None
    """The crop, in level-0 pixels."""
    outline: tuple[Point, ...] = ()
    """The region, in level-0 pixels; empty for crops without a slide."""
    image_path: str | None = None
    """Of the crop as it was cut, relative to the folder of the predictions."""
    saliency_path: str | None = None
    """Of the picture of where the network looked, likewise; None where nobody asked."""
    is_proposed: bool = False
    """Whether a detector proposed the region, and nobody drew it."""

    @property
    def is_referred(self) -> bool:
        """Whether a human must look."""
        return bool(self.reasons)


@dataclass(frozen=True)
class CallUncertainty:
    """What one image leaves open: the readings, as the labels that they are made of."""

    called: LabelSet
    sure: frozenset[str]
    """In every reading."""
    unsure: frozenset[str]
    """In some: alone under softmax, else in every combination that breaks no exclusion."""
    is_one_label: bool
    may_be_none: bool
    """Whether it may be no glomerulus."""
    is_settled: bool = False
    """Whether the call is the only reading."""

    @classmethod
    def settled(cls, reading: LabelSet) -> "CallUncertainty":
        """Return what is left open where a person spoke: nothing."""
        empty = frozenset[str]()
        return cls(
            reading, empty, empty, is_one_label=False, may_be_none=reading is None, is_settled=True
        )


def call_uncertainty(call: GlomerulusCall, taxonomy: Taxonomy, *, head: Head) -> CallUncertainty:
    """Say what a call leaves open.

    Parameters
    ----------
    call : GlomerulusCall
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}
        Softmax: each reading is one label.

    Returns
    -------
    OpenCall
        An image whose answer cannot be trusted (out of focus, unseen stain) may be anything; one
        unlike the training images may be no glomerulus at all. Labels that exclude each other
        are unsure, however sure the model is of each.
    """
    if UNTRUSTED.intersection(call.reasons):
        unsure, sure = frozenset(taxonomy.label_ids), frozenset[str]()
    else:
        unsure = frozenset(key for key, state in call.states.items() if state == "either")
        sure = frozenset(key for key, state in call.states.items() if state == "present")
        torn = {key for pair in taxonomy.conflicts(dict.fromkeys(sure, 1)) for key in pair}
        unsure, sure = unsure | torn, sure - torn
    may_be_none = bool(NOT_A_GLOMERULUS.intersection(call.reasons))
    return CallUncertainty(call.called, sure, unsure, head == "softmax", may_be_none)


def possible_label_sets(call: CallUncertainty, taxonomy: Taxonomy) -> frozenset[LabelSet] | None:
    """Return every reading that cannot be ruled out.

    Parameters
    ----------
    call : OpenCall
    taxonomy : Taxonomy

    Returns
    -------
    frozenset of reading or None
        Always with the call itself. None: more than `MAX_READINGS`.
    """
    if call.is_settled:
        return frozenset({call.called})
    found: set[LabelSet] = {call.called}
    if call.is_one_label:
        found |= {frozenset({label_id}) for label_id in call.unsure | call.sure}
    else:
        combined = _combinations(call.sure, call.unsure, taxonomy)
        if combined is None:
            return None
        found.update(combined)
    if call.may_be_none:
        found.add(None)
    return frozenset(found)


def merge_label_sets(
    sections: Iterable[frozenset[LabelSet] | None], taxonomy: Taxonomy
) -> frozenset[LabelSet] | None:
    """Join the readings of one glomerulus on several sections.

    Parameters
    ----------
    sections : iterable of frozenset of reading or None
        At least one; None where a section has too many to tell.
    taxonomy : Taxonomy

    Returns
    -------
    frozenset of reading or None
        A lesion that one section shows is there. A label that excludes what another section
        shows (normal beside a crescent) falls; where two exclude each other, either may be true.
        None: too many.

    Notes
    -----
    Where one section may show no glomerulus, the others decide.
    """
    joined: frozenset[LabelSet] = frozenset({None})
    for readings in sections:
        if readings is None or len(joined) * len(readings) > MAX_PAIRS:
            return None
        joined = frozenset(
            whole for one in joined for other in readings for whole in _united(one, other, taxonomy)
        )
    return joined


def _united(one: LabelSet, other: LabelSet, taxonomy: Taxonomy) -> Iterable[LabelSet]:
    if one is None and other is None:
        return (None,)
    union = (one or frozenset()) | (other or frozenset())
    falling = [
        label.id
        for label in taxonomy.labels
        if label.id in union and union.intersection(label.excludes)
    ]
    kept = union.difference(falling)
    if kept or not union:
        return (frozenset(kept),)
    return tuple(frozenset({label_id}) for label_id in falling)


@lru_cache(maxsize=4096)
def _combinations(
    sure: frozenset[str], unsure: frozenset[str], taxonomy: Taxonomy
) -> tuple[frozenset[str], ...] | None:
    """Every way to settle the unsure labels without breaking an exclusion; None: too many."""
    found = [] if taxonomy.conflicts(dict.fromkeys(sure, 1)) else [sure]
    for key in taxonomy.label_ids:
        if key not in unsure:
            continue
        excluded = _excluded(taxonomy)[key]
        found += [one | {key} for one in found if excluded.isdisjoint(one)]
        if len(found) > MAX_READINGS:
            return None
    return tuple(found)


@lru_cache(maxsize=64)
def _excluded(taxonomy: Taxonomy) -> Mapping[str, frozenset[str]]:
    """Return what cannot stand beside each label, whichever of the two names the other."""
    keys = taxonomy.label_ids
    return {
        key: frozenset(other for other, apart in zip(keys, row, strict=True) if apart)
        for key, row in zip(keys, taxonomy.exclusions, strict=True)
    }
