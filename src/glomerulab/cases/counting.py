"""From images to glomeruli: each is counted once, with its call and its possible label sets.

Pure functions: images of several sections under one region id are one glomerulus.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from glomerulab.cases.calls import (
    CallUncertainty,
    GlomerulusCall,
    LabelSet,
    call_uncertainty,
    merge_label_sets,
    possible_label_sets,
)
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = ["Glomerulus", "is_bare_number"]

NUMBER = re.compile(r"\s*(annotation\s*)?\d+([.-]\d+)*\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Glomerulus:
    """One glomerulus of a case, on one section or several."""

    calls: tuple[GlomerulusCall, ...]
    labels: LabelSet
    """What it is counted as: the call, or a person's labels where there are some."""
    sections: tuple[CallUncertainty, ...]
    """Of each image; none where a person corrected it."""
    taxonomy: Taxonomy

    @property
    def may_be_no_glomerulus(self) -> bool:
        """Whether no image is certain to show a glomerulus."""
        return all(one.may_be_no_glomerulus for one in self.sections)

    @property
    def is_no_glomerulus(self) -> bool:
        """Whether a person called each image no glomerulus."""
        return all(one.is_corrected and one.called is None for one in self.sections)

    @property
    def is_not_assessed(self) -> bool:
        """Whether it is not counted although no person called it no glomerulus."""
        return self.labels is None and not self.is_no_glomerulus

    @property
    def is_certain(self) -> bool:
        """Whether only one label set is possible."""
        if self.may_be_no_glomerulus and not self.is_no_glomerulus:
            return False
        return all(len(self.possible_values(key)) == 1 for key in self.taxonomy.label_ids)

    def possible_values(self, label_id: str) -> frozenset[bool]:
        """Return whether it has a label: True, False, or both where that is uncertain."""
        label_sets = self.possible_label_sets((frozenset({label_id}),))
        if label_sets is None:
            return frozenset({True, False})
        return frozenset(labels is not None and label_id in labels for labels in label_sets)

    def possible_label_sets(self, groups: tuple[frozenset[str], ...]) -> frozenset[LabelSet] | None:
        """Return every label set that cannot be ruled out, as far as `groups` distinguish labels.

        Parameters
        ----------
        groups : tuple of frozenset of str
            Label groups: it matters only whether a set shares a label with each. Labels that no
            group distinguishes are represented by the first of them (see `LabelClasses`).

        Returns
        -------
        frozenset of LabelSet or None
            None: too many to enumerate, so anything is possible.
        """
        return _possible_label_sets(self.sections, self.taxonomy, groups)


def group_glomeruli(
    calls: Sequence[GlomerulusCall],
    taxonomy: Taxonomy,
    *,
    head: Head,
    corrections: Mapping[str, LabelSet] | None = None,
) -> tuple[Glomerulus, ...]:
    """Group the calls of one patient by glomerulus, in the order of the calls.

    Images of different slides with the same region id are one glomerulus, unless the id is a bare
    number (see `is_bare_number`): equal numbers on two slides are hardly ever the same glomerulus.
    """
    groups: dict[object, list[GlomerulusCall]] = {}
    for call in calls:
        groups.setdefault(_identity(call), []).append(call)
    return tuple(
        _glomerulus(tuple(group), taxonomy, head, corrections or {}) for group in groups.values()
    )


def is_bare_number(region_id: str) -> bool:
    """Return whether a region id is a number, as programs give to unnamed regions.

    Such as ``3``, ``3.1`` (a part of it), ``2-3`` (layer and number of ImageScope) or ASAP's
    ``Annotation 3``.

    Examples
    --------
    >>> is_bare_number("2-3"), is_bare_number("g3")
    (True, False)
    """
    return NUMBER.fullmatch(region_id) is not None


class LabelClasses:
    """Equivalence classes of labels for one question, each represented by its first label.

    Twenty uncertain labels have a million combinations, but a question about crescents depends
    only on whether there is a crescent and whether there is another label that matters to it.

    Two labels are equivalent if the same groups hold them, they exclude the same labels, and the
    same labels exclude them. Joining sections and checking exclusions then give the same result
    for classes as for labels.
    """

    def __init__(self, taxonomy: Taxonomy, groups: tuple[frozenset[str], ...]) -> None:
        first_of: dict[object, str] = {}
        self._class_of: dict[str, str] = {}
        for label in taxonomy.labels:
            key = (
                tuple(label.id in group for group in groups),
                frozenset(label.excludes),
                frozenset(one.id for one in taxonomy.labels if label.id in one.excludes),
                label.id if label.id in label.excludes else None,
            )
            self._class_of[label.id] = first_of.setdefault(key, label.id)
        representatives = set(self._class_of.values())
        self.taxonomy = Taxonomy(
            taxonomy.name,
            tuple(
                label.model_copy(update={"excludes": tuple(sorted(self.of(label.excludes)))})
                for label in taxonomy.labels
                if label.id in representatives
            ),
        )
        """Of the representatives."""

    def of(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the classes of some labels."""
        return frozenset(self._class_of[key] for key in labels)

    def simplify(self, call: CallUncertainty) -> CallUncertainty:
        """Return the uncertainty of a call in terms of the classes."""
        called: LabelSet = None if call.called is None else self.of(call.called)
        certain, uncertain = self.of(call.certain), self.of(call.uncertain)
        # A class with a certain label is certain: an uncertain label of it adds nothing.
        uncertain = uncertain if call.is_single_label else uncertain - certain
        return replace(call, called=called, certain=certain, uncertain=uncertain)


@lru_cache(maxsize=1024)
def _label_classes(taxonomy: Taxonomy, groups: tuple[frozenset[str], ...]) -> LabelClasses:
    return LabelClasses(taxonomy, groups)


@lru_cache(maxsize=8192)
def _possible_label_sets(
    sections: tuple[CallUncertainty, ...],
    taxonomy: Taxonomy,
    groups: tuple[frozenset[str], ...],
) -> frozenset[LabelSet] | None:
    classes = _label_classes(taxonomy, groups)
    found = (possible_label_sets(classes.simplify(one), classes.taxonomy) for one in sections)
    return merge_label_sets(found, classes.taxonomy)


def _identity(call: GlomerulusCall) -> object:
    region = call.region_id
    if region is None or is_bare_number(region):
        return (call.image_id,)
    return call.patient_id, region


def _glomerulus(
    calls: tuple[GlomerulusCall, ...],
    taxonomy: Taxonomy,
    head: Head,
    corrections: Mapping[str, LabelSet],
) -> Glomerulus:
    sections = tuple(
        CallUncertainty.corrected(corrections[call.image_id])
        if call.image_id in corrections
        else call_uncertainty(call, taxonomy, head=head)
        for call in calls
    )
    merged = merge_label_sets([frozenset({one.called}) for one in sections], taxonomy)
    assert merged is not None  # one label set a section
    return Glomerulus(calls, _most_probable(merged, calls), sections, taxonomy)


def _most_probable(label_sets: frozenset[LabelSet], calls: tuple[GlomerulusCall, ...]) -> LabelSet:
    """Choose among calls of different sections that exclude each other."""
    if len(label_sets) == 1:
        return next(iter(label_sets))
    return max(
        (labels for labels in label_sets if labels is not None),
        key=lambda labels: (
            max(call.probabilities[key] for call in calls for key in labels),
            sorted(labels),
        ),
    )
