"""From images to glomeruli: what was called, and every reading that cannot be ruled out.

Pure: a case is a list of calls, its glomeruli are counted once each, also where a glomerulus
stands on several sections under one id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from glomerulab.cases.calls import (
    CallUncertainty,
    GlomerulusCall,
    LabelSet,
    call_uncertainty,
    merge_label_sets,
    possible_label_sets,
)
from glomerulab.cases.label_kinds import label_kinds
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = ["Glomerulus", "group_glomeruli", "is_bare_number"]

NUMBERED = re.compile(r"\s*(annotation\s*)?\d+([.-]\d+)*\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Glomerulus:
    """One glomerulus of a case, on one section or several."""

    calls: tuple[GlomerulusCall, ...]
    called: LabelSet
    """What counts: the call, or a person's where there is one."""
    sections: tuple[CallUncertainty, ...]
    """What each image leaves open; nothing where a person spoke."""
    taxonomy: Taxonomy

    @property
    def may_be_none(self) -> bool:
        """Whether it may be no glomerulus."""
        return all(one.may_be_none for one in self.sections)

    @property
    def must_be_none(self) -> bool:
        """Whether it is no glomerulus: a person said so of each image."""
        return all(one.is_settled and one.called is None for one in self.sections)

    @property
    def is_certain(self) -> bool:
        """Whether there is only one reading."""
        if self.may_be_none and not self.must_be_none:
            return False
        return all(len(self.shows(label_id)) == 1 for label_id in self.taxonomy.label_ids)

    def shows(self, label_id: str) -> frozenset[bool]:
        """Say whether it has a label: yes, no, or both where the doubts allow both."""
        readings = self.possible((frozenset({label_id}),))
        if readings is None:
            return frozenset({True, False})
        return frozenset(reading is not None and label_id in reading for reading in readings)

    def possible(self, groups: tuple[frozenset[str], ...]) -> frozenset[LabelSet] | None:
        """Return every reading that cannot be ruled out, as far as a question goes.

        Parameters
        ----------
        groups : tuple of frozenset of str
            What is asked: whether a reading shares a label with each group. Labels that no group
            tells apart are named by the first of them.

        Returns
        -------
        frozenset of reading or None
            None: too many to be told one by one; anything may be.
        """
        return _possible(self.sections, self.taxonomy, groups)


def group_glomeruli(
    calls: Sequence[GlomerulusCall],
    taxonomy: Taxonomy,
    *,
    head: Head,
    latest_corrections: dict[str, LabelSet] | None = None,
) -> tuple[Glomerulus, ...]:
    """Count what is one glomerulus once.

    Parameters
    ----------
    calls : sequence of GlomerulusCall
        Of one patient, from any number of slides.
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}
    overruled : dict of str to reading, optional
        What a person said, by image id; it is certain.

    Returns
    -------
    tuple of Glomerulus
        In the order of the calls.

    Notes
    -----
    Images of different slides with the same region id are one glomerulus. A number joins nothing
    (see `is_bare_number`): the same number on two slides is hardly ever the same glomerulus.
    """
    groups: dict[object, list[GlomerulusCall]] = {}
    for call in calls:
        groups.setdefault(_identity(call), []).append(call)
    return tuple(
        _glomerulus(tuple(group), taxonomy, head, latest_corrections or {})
        for group in groups.values()
    )


def is_bare_number(region_id: str) -> bool:
    """Say whether a region is called by a number, as programs call what nobody named.

    Parameters
    ----------
    region_id : str

    Returns
    -------
    bool
        Such as ``3``, ``3.1`` (a part of it), ``2-3`` (layer and number of ImageScope) or ASAP's
        ``Annotation 3``.

    Examples
    --------
    >>> is_only_numbered("2-3"), is_only_numbered("g3")
    (True, False)
    """
    return NUMBERED.fullmatch(region_id) is not None


def _identity(call: GlomerulusCall) -> object:
    region = call.region_id
    if region is None or is_bare_number(region):
        return (call.image_id,)
    return call.patient_id, region


def _glomerulus(
    calls: tuple[GlomerulusCall, ...],
    taxonomy: Taxonomy,
    head: Head,
    latest_corrections: dict[str, LabelSet],
) -> Glomerulus:
    sections = tuple(
        CallUncertainty.settled(latest_corrections[call.image_id])
        if call.image_id in latest_corrections
        else call_uncertainty(call, taxonomy, head=head)
        for call in calls
    )
    settled = merge_label_sets([frozenset({one.called}) for one in sections], taxonomy)
    assert settled is not None  # a reading a section
    return Glomerulus(calls, _likeliest(settled, calls), sections, taxonomy)


@lru_cache(maxsize=8192)
def _possible(
    sections: tuple[CallUncertainty, ...], taxonomy: Taxonomy, groups: tuple[frozenset[str], ...]
) -> frozenset[LabelSet] | None:
    kinds = label_kinds(taxonomy, groups)
    found = (possible_label_sets(kinds.simplified(one), kinds.taxonomy) for one in sections)
    return merge_label_sets(found, kinds.taxonomy)


def _likeliest(readings: frozenset[LabelSet], calls: tuple[GlomerulusCall, ...]) -> LabelSet:
    """Of calls that exclude each other on different sections, take the surest."""
    if len(readings) == 1:
        return next(iter(readings))
    return max(
        (reading for reading in readings if reading is not None),
        key=lambda r: (max(call.probabilities[key] for call in calls for key in r), sorted(r)),
    )
