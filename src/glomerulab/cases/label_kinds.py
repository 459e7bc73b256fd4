"""Labels that a question cannot tell apart, taken as one, so that few readings are to be tried.

Twenty unsure labels have a million readings. A question that asks for crescents needs only to know
whether there is a crescent, and whether there is anything else that matters to it.
"""

from dataclasses import replace
from functools import lru_cache

from glomerulab.cases.calls import CallUncertainty, LabelSet
from glomerulab.taxonomy import Taxonomy

__all__ = ["LabelClasses", "label_kinds"]


class LabelClasses:
    """Labels in kinds; each kind is called by the first of its labels.

    Parameters
    ----------
    taxonomy : Taxonomy
    groups : tuple of frozenset of str
        What is asked: whether a reading shares a label with each group.

    Notes
    -----
    Two labels are of one kind if the same groups hold them, they exclude the same labels, and the
    same labels exclude them. Joining sections and breaking no exclusion then come out the same for
    kinds as for labels, so nothing is lost but what was not asked.
    """

    def __init__(self, taxonomy: Taxonomy, groups: tuple[frozenset[str], ...]) -> None:
        firsts: dict[object, str] = {}
        self._kind_of: dict[str, str] = {}
        for label in taxonomy.labels:
            excluded_by = frozenset(one.id for one in taxonomy.labels if label.id in one.excludes)
            alike = (
                tuple(label.id in group for group in groups),
                frozenset(label.excludes),
                excluded_by,
            )
            own = label.id if label.id in label.excludes else None
            self._kind_of[label.id] = firsts.setdefault((alike, own), label.id)
        kept = set(self._kind_of.values())
        self.taxonomy = Taxonomy(
            taxonomy.name,
            tuple(
                label.model_copy(update={"excludes": tuple(sorted(self.of(label.excludes)))})
                for label in taxonomy.labels
                if label.id in kept
            ),
        )
        """Of the kinds."""

    def of(self, labels: frozenset[str] | tuple[str, ...]) -> frozenset[str]:
        """Return the kinds of some labels."""
        return frozenset(self._kind_of[key] for key in labels)

    def simplified(self, call: CallUncertainty) -> CallUncertainty:
        """Return what a call leaves open of the kinds."""
        called: LabelSet = None if call.called is None else self.of(call.called)
        sure = self.of(call.sure)
        unsure = self.of(call.unsure)
        # Where a label is there, its kind is: another one of it that may be there adds nothing.
        unsure = unsure if call.is_one_label else unsure - sure
        return replace(call, called=called, sure=sure, unsure=unsure)


@lru_cache(maxsize=1024)
def label_kinds(taxonomy: Taxonomy, groups: tuple[frozenset[str], ...]) -> LabelClasses:
    """Return the kinds of a taxonomy for a question; see `LabelClasses`."""
    return LabelClasses(taxonomy, groups)
