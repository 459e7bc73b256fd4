"""What the glomeruli of one patient add up to: numbers, shares with intervals, rule results."""

from collections.abc import Sequence
from dataclasses import dataclass

from glomerulab.cases.counting import Glomerulus
from glomerulab.cases.grading import RuleResult, apply_rule_set
from glomerulab.cases.rules import RuleSet
from glomerulab.cases.wilson import wilson_interval
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["CaseSummary", "LabelCount", "summarize_case"]

FEW_GLOMERULI = 25
"""Below this number a percentage says little (its interval spans tens of points)."""


@dataclass(frozen=True)
class LabelCount:
    """How many glomeruli carry a label."""

    label: Label
    n_with: int
    n_of: int
    interval: tuple[float, float] | None
    """Wilson's 95 % interval of the share; None without glomeruli."""
    n_range: tuple[int, int]
    """Fewest and most that the uncertain glomeruli allow."""

    @property
    def share(self) -> float | None:
        """From 0 to 1; None without glomeruli."""
        return self.n_with / self.n_of if self.n_of else None


@dataclass(frozen=True)
class CaseSummary:
    """One patient's case."""

    n_glomeruli: int
    n_range: tuple[int, int]
    """Fewest and most glomeruli, as some images may show none."""
    n_images: int
    n_slides: int
    """Slides that the images are of; crops of a manifest may name none."""
    n_on_several_sections: int
    n_referred: int
    """Glomeruli with an image that a human must look at and has not."""
    n_uncertain: int
    """Glomeruli with more than one possible reading."""
    labels: tuple[LabelCount, ...]
    rules: tuple[RuleResult, ...]

    @property
    def is_small(self) -> bool:
        """Whether percentages are unreliable."""
        return self.n_glomeruli < FEW_GLOMERULI


def summarize_case(
    glomeruli: Sequence[Glomerulus],
    taxonomy: Taxonomy,
    rule_sets: Sequence[RuleSet],
    *,
    reviewed: frozenset[str] = frozenset(),
) -> CaseSummary:
    """Add up one patient's glomeruli.

    Parameters
    ----------
    glomeruli : sequence of Glomerulus
        May be empty.
    taxonomy : Taxonomy
    rule_sets : sequence of RuleSet
    reviewed : frozenset of str, default empty
        Ids of the images that a person has looked at.

    Returns
    -------
    CaseSummary
    """
    calls = [call for one in glomeruli for call in one.calls]
    n_glomeruli = sum(1 for one in glomeruli if one.called is not None)
    return CaseSummary(
        n_glomeruli=n_glomeruli,
        n_range=(
            sum(1 for one in glomeruli if not one.may_be_none),
            sum(1 for one in glomeruli if not one.must_be_none),
        ),
        n_images=len(calls),
        n_slides=len({call.slide_id for call in calls} - {""}),
        n_on_several_sections=sum(1 for one in glomeruli if len(one.calls) > 1),
        n_referred=sum(
            any(call.is_referred and call.image_id not in reviewed for call in one.calls)
            for one in glomeruli
        ),
        n_uncertain=sum(1 for one in glomeruli if not one.is_certain),
        labels=tuple(_count(label, glomeruli, n_glomeruli) for label in taxonomy.labels),
        rules=tuple(apply_rule_set(rules, glomeruli, taxonomy) for rules in rule_sets),
    )


def _count(label: Label, glomeruli: Sequence[Glomerulus], n_of: int) -> LabelCount:
    n_with = sum(one.called is not None and label.id in one.called for one in glomeruli)
    shown = [one.shows(label.id) for one in glomeruli]
    return LabelCount(
        label,
        n_with,
        n_of,
        wilson_interval(n_with, n_of) if n_of else None,
        (
            sum(answers == {True} for answers in shown),
            sum(True in answers for answers in shown),
        ),
    )
