"""What was said of each glomerulus of a case: the call, what could not be ruled out, and why.

The word that `inference` writes and `report` reads. A reading is a set of labels that a glomerulus
may truly carry, or None where it may be no glomerulus at all. It must not know of models, images
or files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from glomerulab.geometry import Box, Point
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "REASONS",
    "GlomerulusCall",
    "LabelState",
    "Reading",
    "merged_readings",
    "possible_readings",
]

Reading = frozenset[str] | None
"""Ids of the labels that are present; None: this is no glomerulus."""

LabelState = str
"""``present``, ``absent``, or ``either`` where the model cannot tell."""

REASONS: Mapping[str, str] = {
    "uncertain": "the model cannot settle on one answer",
    "out_of_focus": "the image is less sharp than almost all the model was trained on",
    "out_of_distribution": "the image is unlike those the model was trained on",
    "no_tissue": "the image shows next to no tissue",
    "stain_unseen": "the model was trained on no image of this stain",
    "not_normalized": "its colours could not be brought to the model's stain reference",
}
"""Why a glomerulus is referred to a human, by the word that stands in the table."""

NOT_A_GLOMERULUS = frozenset({"out_of_distribution", "no_tissue"})
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


def possible_readings(
    call: GlomerulusCall, taxonomy: Taxonomy, *, head: Head
) -> frozenset[Reading]:
    """Return every reading that the model cannot rule out.

    Parameters
    ----------
    call : GlomerulusCall
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}
        Softmax: each reading is one label.

    Returns
    -------
    frozenset of reading
        Always with the call itself. An image whose answer cannot be trusted (out of focus, unseen
        stain) may be anything; one unlike the training images may be no glomerulus at all.
    """
    if UNTRUSTED.intersection(call.reasons):
        unsure, sure = frozenset(taxonomy.label_ids), frozenset[str]()
    else:
        unsure = frozenset(key for key, state in call.states.items() if state == "either")
        sure = frozenset(key for key, state in call.states.items() if state == "present")
    if head == "softmax":
        found: set[Reading] = {frozenset({label_id}) for label_id in unsure | sure}
    else:
        found = set(_combinations(sure, unsure, taxonomy))
    found.add(call.called)
    if NOT_A_GLOMERULUS.intersection(call.reasons):
        found.add(None)
    return frozenset(found)


def merged_readings(
    sections: Iterable[frozenset[Reading]], taxonomy: Taxonomy
) -> frozenset[Reading]:
    """Join the readings of one glomerulus on several sections.

    Parameters
    ----------
    sections : iterable of frozenset of reading
        At least one.
    taxonomy : Taxonomy

    Returns
    -------
    frozenset of reading
        A lesion that one section shows is there. A label that excludes what another section
        shows (normal beside a crescent) falls; where two exclude each other, either may be true.

    Notes
    -----
    Where one section may show no glomerulus, the others decide.
    """
    joined: frozenset[Reading] = frozenset({None})
    for readings in sections:
        joined = frozenset(
            whole for one in joined for other in readings for whole in _united(one, other, taxonomy)
        )
    return joined


def _united(one: Reading, other: Reading, taxonomy: Taxonomy) -> Iterable[Reading]:
    if one is None or other is None:
        return (other if one is None else one,)
    union = one | other
    falling = [
        label.id for label in taxonomy.labels
        if label.id in union and union.intersection(label.excludes)
    ]  # fmt: skip
    kept = union.difference(falling)
    if kept or not union:
        return (frozenset(kept),)
    return tuple(frozenset({label_id}) for label_id in falling)


@lru_cache(maxsize=4096)
def _combinations(
    sure: frozenset[str], unsure: frozenset[str], taxonomy: Taxonomy
) -> tuple[frozenset[str], ...]:
    """Every way to settle the unsure labels without breaking an exclusion."""
    order = [label_id for label_id in taxonomy.label_ids if label_id in unsure]
    found = []
    for flags in product((False, True), repeat=len(order)):
        chosen = sure.union(key for key, flag in zip(order, flags, strict=True) if flag)
        if not taxonomy.conflicts(dict.fromkeys(chosen, 1)):
            found.append(frozenset(chosen))
    return tuple(found) or (sure,)
