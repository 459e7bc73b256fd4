"""Results of one case: counts of labels, and grades of rule sets with all grades still possible.

A glomerulus with several possible label sets makes several counts possible. All reachable counts
are found exactly, so a range of grades is neither a guess nor a sample.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.counting import Glomerulus
from glomerulab.cases.rules import Finding, Grade, Item, RuleSet, code_of, matching_labels
from glomerulab.cases.structures import CaseStructures, Measured
from glomerulab.i18n.catalogue import LANGUAGES, Language, localized, translate
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["CaseSummary", "FindingCount", "ItemResult", "LabelCount", "RuleResult"]

FEW_GLOMERULI = 25
"""Below this number a percentage is unreliable: its interval spans tens of points."""
MAX_STATES = 50_000

Text = Mapping[Language, str]
"""A text in every language."""

Counts = tuple[int, ...]
"""Glomeruli in the denominator, then those that count for each grade."""


@dataclass(frozen=True)
class FindingCount:
    """Glomeruli with the findings that a grade is based on."""

    findings: tuple[Finding, ...]
    """Any of them counts; empty for the findings of the item itself."""
    n_with: int

    @property
    def name(self) -> str:
        """English name in DICOM SR and FHIR."""
        if not self.findings:
            return "Glomeruli with a finding of the question"
        return "Glomeruli counted: " + " or ".join(finding.name for finding in self.findings)

    @property
    def code(self) -> str:
        """Code in DICOM SR, such as ``n_with/global_sclerosis``."""
        return code_of("n_with", *(finding.name.lower() for finding in self.findings))


@dataclass(frozen=True)
class ItemResult:
    """The grade of one item of a rule set."""

    item: Item
    grade: Grade | None
    """None if it was not assessed."""
    possible: tuple[Grade, ...] = ()
    """Every grade that some choice of the possible label sets gives, in the order of the rules.

    Not empty without a grade if only the uncertain glomeruli could fill the denominator.
    """
    counts: tuple[FindingCount, ...] = ()
    """What the grade is based on; several if no single count decided, as for a mixed class."""
    n_of: int = 0
    """Glomeruli in the denominator."""
    labels: tuple[str, ...] = ()
    """Ids of the labels that it is based on."""
    not_assessed: Text | None = None
    """Why there is no grade."""
    warnings: tuple[Text, ...] = ()
    """Why a pathologist's grade may differ."""
    measured: Measured | None = None
    """What outlines gave, where they grade the item."""

    @property
    def n_with(self) -> int | None:
        """Glomeruli with the finding; None without a grade, or with several counts."""
        return self.counts[0].n_with if len(self.counts) == 1 else None


@dataclass(frozen=True)
class RuleResult:
    """The grades of a rule set for one case."""

    rule_set: RuleSet
    items: tuple[ItemResult, ...]
    n_glomeruli: int
    n_range: tuple[int, int]
    """Fewest and most glomeruli, as some images may show none."""

    @property
    def has_enough(self) -> bool:
        """Whether there are as many glomeruli as the source requires."""
        return self.n_glomeruli >= self.rule_set.min_glomeruli

    @property
    def may_have_too_few(self) -> bool:
        """Whether there are enough only if each image shows a glomerulus."""
        return self.has_enough and self.n_range[0] < self.rule_set.min_glomeruli

    @property
    def too_few(self) -> str:
        """English warning that the source requires more glomeruli; empty if it does not."""
        least = self.rule_set.min_glomeruli
        if not self.has_enough:
            return f"Only {self.n_glomeruli} of the {least} glomeruli that the source requires."
        if self.may_have_too_few:
            return (
                f"Perhaps only {self.n_range[0]} of the {least} glomeruli that the source "
                "requires, given the uncertain ones."
            )
        return ""

    @property
    def not_assessed(self) -> tuple[ItemResult, ...]:
        """Items without a grade."""
        return tuple(result for result in self.items if result.grade is None)


@dataclass(frozen=True)
class LabelCount:
    """How many glomeruli carry a label."""

    label: Label
    n_with: int
    n_of: int
    n_range: tuple[int, int]
    """Fewest and most that the uncertain glomeruli allow."""

    @property
    def share(self) -> float | None:
        """From 0 to 1; None without glomeruli."""
        return self.n_with / self.n_of if self.n_of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share; None without glomeruli.

        It takes the glomeruli as independent draws. Those of one patient resemble each other no
        less than the patient's whole kidney does.
        """
        if not self.n_of:
            return None
        from scipy.stats import binomtest  # takes a while to load

        interval = binomtest(self.n_with, self.n_of).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class CaseSummary:
    """Counts and grades of one case."""

    n_glomeruli: int
    n_range: tuple[int, int]
    """Fewest and most glomeruli, as some images may show none."""
    n_images: int
    n_slides: int
    """Slides of the images; crops of a manifest may name none."""
    n_on_several_sections: int
    n_referred: int
    """Glomeruli with an image that a person must review and has not."""
    n_not_assessed: int
    """Not counted: no image of them is assessed as a glomerulus, and no person says what it is."""
    n_several_labels: int
    """Counted under each of their labels."""
    n_no_label: int
    """Counted under none of the labels."""
    n_uncertain: int
    """Glomeruli with more than one possible label set."""
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
    structures: CaseStructures | None = None,
) -> CaseSummary:
    """Count and grade the glomeruli of one case."""
    calls = [call for one in glomeruli for call in one.calls]
    n_glomeruli = _n_called(glomeruli)
    return CaseSummary(
        n_glomeruli=n_glomeruli,
        n_range=_n_range(glomeruli),
        n_images=len(calls),
        n_slides=len({call.slide_id for call in calls} - {""}),
        n_on_several_sections=sum(1 for one in glomeruli if len(one.calls) > 1),
        n_referred=sum(
            any(call.is_referred and call.image_id not in reviewed for call in one.calls)
            for one in glomeruli
            if not one.is_not_assessed
        ),
        n_several_labels=sum(len(one.labels or ()) > 1 for one in glomeruli),
        n_no_label=sum(one.labels == frozenset() for one in glomeruli),
        n_not_assessed=sum(1 for one in glomeruli if one.is_not_assessed),
        n_uncertain=sum(1 for one in glomeruli if not one.is_certain),
        labels=tuple(_label_count(label, glomeruli, n_glomeruli) for label in taxonomy.labels),
        rules=tuple(
            apply_rule_set(rules, glomeruli, taxonomy, structures=structures) for rules in rule_sets
        ),
    )


def apply_rule_set(
    rule_set: RuleSet,
    glomeruli: Sequence[Glomerulus],
    taxonomy: Taxonomy,
    *,
    structures: CaseStructures | None = None,
) -> RuleResult:
    """Grade every item of a rule set for the glomeruli and outlined structures of one case."""
    items = tuple(
        _grade_item(rule_set, item, glomeruli, taxonomy)
        if item.measure is None or structures is None
        else _grade_measured(item, structures[item.measure])
        for item in rule_set.items
    )
    return RuleResult(rule_set, items, _n_called(glomeruli), _n_range(glomeruli))


def _n_called(glomeruli: Sequence[Glomerulus]) -> int:
    return sum(1 for one in glomeruli if one.labels is not None)


def _n_range(glomeruli: Sequence[Glomerulus]) -> tuple[int, int]:
    fewest = sum(1 for one in glomeruli if not one.may_be_no_glomerulus)
    return fewest, sum(1 for one in glomeruli if not one.is_no_glomerulus)


def _label_count(label: Label, glomeruli: Sequence[Glomerulus], n_of: int) -> LabelCount:
    values = [one.possible_values(label.id) for one in glomeruli]
    return LabelCount(
        label,
        n_with=sum(one.labels is not None and label.id in one.labels for one in glomeruli),
        n_of=n_of,
        n_range=(sum(one == {True} for one in values), sum(True in one for one in values)),
    )


def _grade_item(
    rule_set: RuleSet, item: Item, glomeruli: Sequence[Glomerulus], taxonomy: Taxonomy
) -> ItemResult:
    if item.never:
        return ItemResult(item, None, not_assessed=_in_each_language(item, "never"))
    matches = {key: matching_labels(found, taxonomy) for key, found in rule_set.findings.items()}
    named = dict.fromkeys(
        key for keys in (item.counts, *(grade.counts for grade in item.grades)) for key in keys
    )
    labels = tuple(
        key for key in taxonomy.label_ids if any(key in matches[name][0] for name in named)
    )
    if named and not labels:
        missing = [rule_set.findings[key] for key in named]
        return ItemResult(item, None, not_assessed=_no_label(missing))
    counter = _ItemCounter(item, {key: found for key, (found, _) in matches.items()})
    called = counter.count([one.labels for one in glomeruli])
    result = ItemResult(
        item,
        None,
        possible=counter.reachable_grades(glomeruli),
        labels=labels,
        warnings=(
            *_label_warnings(rule_set, item, named, matches),
            *_proposal_warnings(item, glomeruli),
        ),
    )
    if called[0] == 0 and item.counts:
        return replace(result, not_assessed=_no_glomerulus(glomeruli))
    grade = counter.grade(called)
    counts = counter.basis(grade, called, rule_set.findings)
    return replace(result, grade=grade, counts=counts, n_of=called[0])


def _grade_measured(item: Item, measured: Measured) -> ItemResult:
    """Grade by what outlines gave: the likely grade, and all that their range allows."""
    if measured.value is None:
        return ItemResult(item, None, not_assessed=measured.basis)
    low, likely, high = (_measured_grade(item, one) for one in measured.value)
    order = item.grades
    possible = order[order.index(high) : order.index(low) + 1]  # the highest grade comes first
    return ItemResult(item, likely, possible=possible, measured=measured)


def _measured_grade(item: Item, value: float) -> Grade:
    # Sums of areas end beside a limit that they mean to meet.
    exact = round(value, 9)
    return next(
        grade
        for grade in item.grades
        if grade.is_rest
        or (grade.above is not None and exact > float(grade.above))
        or (grade.at_least is not None and exact >= float(grade.at_least))
        or (grade.at_least_n is not None and exact >= grade.at_least_n)
    )


def _no_label(findings: Sequence[Finding]) -> Text:
    return {
        language: translate(
            "the model has no label for {findings}",
            language,
            findings=translate("sign|, ", language).join(
                _name(finding, language) for finding in findings
            ),
        )
        for language in LANGUAGES
    }


def _no_glomerulus(glomeruli: Sequence[Glomerulus]) -> Text:
    if not glomeruli:
        return {one: translate("no glomerulus to count", one) for one in LANGUAGES}
    return {one: translate("no glomerulus in the denominator", one) for one in LANGUAGES}


def _label_warnings(
    rule_set: RuleSet,
    item: Item,
    named: Iterable[str],
    matches: Mapping[str, tuple[frozenset[str], bool]],
) -> list[Text]:
    """Warn of findings without a label and of labels that include more than the finding."""
    warnings: list[Text] = []
    for finding, (labels, is_wider) in ((rule_set.findings[key], matches[key]) for key in named):
        if not labels:
            warnings.append(
                {
                    language: translate(
                        "No label for {finding}: glomeruli with it alone are not counted.",
                        language,
                        finding=_name(finding, language),
                    )
                    for language in LANGUAGES
                }
            )
        elif is_wider:
            warnings.append(_in_each_language(finding, "wider_note"))
    return warnings + [
        {
            language: translate(
                "No label for {finding}: such glomeruli stay in the denominator.",
                language,
                finding=_name(rule_set.findings[key], language),
            )
            for language in LANGUAGES
        }
        for key in item.leaves_out
        if not matches[key][0]
    ]


def _proposal_warnings(item: Item, glomeruli: Sequence[Glomerulus]) -> list[Text]:
    """Warn, where the number of glomeruli decides, that a detector chose what is counted."""
    n_proposed = sum(any(call.is_proposed for call in one.calls) for one in glomeruli)
    if not n_proposed or all(grade.at_least_n is None for grade in item.grades):
        return []
    return [
        {
            language: translate(
                "{n_proposed} of {n} glomeruli were proposed by a detector and drawn by no person: "
                "some may be missed, some may be other tissue, some may be counted again on each "
                "section.",
                language,
                n_proposed=n_proposed,
                n=len(glomeruli),
            )
            for language in LANGUAGES
        }
    ]


def _name(finding: Finding, language: Language) -> str:
    return localized(finding, "name", language).lower()


def _in_each_language(thing: Finding | Item, field: str) -> Text:
    return {language: localized(thing, field, language) for language in LANGUAGES}


class _ItemCounter:
    """Counts for one item: each label set becomes a row of zeros and ones."""

    def __init__(self, item: Item, labels: Mapping[str, frozenset[str]]) -> None:
        self.item = item
        self.left_out = frozenset[str]().union(*(labels[key] for key in item.leaves_out))
        self.of_grade = [
            frozenset[str]().union(*(labels[key] for key in grade.counts or item.counts))
            for grade in item.grades
        ]

    def row(self, labels: LabelSet) -> Counts:
        """Return what one glomerulus adds to the counts."""
        if labels is None or labels & self.left_out:
            return (0,) * (len(self.of_grade) + 1)
        return (1, *(int(bool(labels & of_grade)) for of_grade in self.of_grade))

    def count(self, label_sets: Iterable[LabelSet]) -> Counts:
        """Return the counts of a case."""
        total = (0,) * (len(self.of_grade) + 1)
        for labels in label_sets:
            total = tuple(a + b for a, b in zip(total, self.row(labels), strict=True))
        return total

    def grade(self, counts: Counts) -> Grade:
        """Return the first grade that fits."""
        fitting = (
            grade
            for place, grade in enumerate(self.item.grades)
            if _fits(grade, counts[1 + place], counts[0])
        )
        return next(fitting)  # the last grade has no limits

    def basis(
        self, grade: Grade, counts: Counts, findings: Mapping[str, Finding]
    ) -> tuple[FindingCount, ...]:
        """Return the count that a grade is based on; for the rest, all that excluded the others."""
        found: dict[tuple[str, ...], FindingCount] = {}
        for place, one in enumerate(self.item.grades):
            keys = one.counts or self.item.counts
            decided = grade.is_rest or one == grade
            if decided and not one.is_rest and self.of_grade[place]:
                named = () if keys == self.item.counts else tuple(findings[key] for key in keys)
                found[keys] = FindingCount(named, counts[1 + place])
        # The item's own findings come first: they are shown without a name.
        return tuple(sorted(found.values(), key=lambda one: len(one.findings) > 0))

    def reachable_grades(self, glomeruli: Sequence[Glomerulus]) -> tuple[Grade, ...]:
        """Return every grade that some choice of the possible label sets gives."""
        groups = (self.left_out, *self.of_grade)
        possible = [one.possible_label_sets(groups) for one in glomeruli]
        options = Counter(
            frozenset(self.row(labels) for labels in label_sets)
            for label_sets in possible
            if label_sets is not None
        )
        states = _reachable_counts(options, len(self.of_grade) + 1)
        if states is None or None in possible:
            # So much uncertainty excludes hardly a grade: exclude none.
            return self.item.grades
        found = {self.grade(state).grade for state in states if state[0] or not self.item.counts}
        return tuple(grade for grade in self.item.grades if grade.grade in found)


def _fits(grade: Grade, n_with: int, n_of: int) -> bool:
    share = Fraction(n_with, n_of) if n_of else Fraction(0)
    if grade.at_least is not None and share < grade.at_least:
        return False
    if grade.above is not None and share <= grade.above:
        return False
    return grade.at_least_n is None or n_of >= grade.at_least_n


def _reachable_counts(options: Counter[frozenset[Counts]], width: int) -> set[Counts] | None:
    """Return every sum of one row per glomerulus, or None if there are too many to hold."""
    base = options.total() + 1
    states = {0}  # each state is one number, its counts the digits: numbers add faster than tuples
    for rows, n_times in options.items():
        steps = [sum(digit * base**place for place, digit in enumerate(row)) for row in rows]
        for _ in range(n_times):
            states = {state + step for state in states for step in steps}
            if len(states) > MAX_STATES:
                return None
    return {tuple(state // base**place % base for place in range(width)) for state in states}
