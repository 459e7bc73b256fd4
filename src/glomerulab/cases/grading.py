"""Apply a rule set to the glomeruli of a case: one answer, and all that the doubts leave open.

A glomerulus with several possible readings makes several counts possible. All counts that can be
reached are found exactly, so that the range of answers is neither a guess nor a sample.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.counting import Glomerulus
from glomerulab.cases.rules import Finding, Grade, Item, RuleSet, matching_labels
from glomerulab.taxonomy import Taxonomy

__all__ = ["FindingCount", "ItemResult", "RuleResult", "apply_rule_set"]

MAX_STATES = 50_000

Counts = tuple[int, ...]
"""Glomeruli in the denominator, then those that count for each grade."""


@dataclass(frozen=True)
class FindingCount:
    """One count that a grade rests on."""

    findings: tuple[Finding, ...]
    """Any of them counts; empty where they are those that the question itself names."""
    n_with: int


@dataclass(frozen=True)
class ItemResult:
    """The answer to one question of a rule set."""

    item: Item
    grade: Grade | None
    """None where it was not assessed."""
    counted: tuple[FindingCount, ...]
    """What the grade rests on; several where no single one decided, as for a mixed class."""
    n_of: int
    """Glomeruli in the denominator."""
    possible: tuple[Grade, ...]
    """Every grade that some reading of the uncertain glomeruli gives, in the order of the rules.

    Not empty without a grade where only the calls, and not the doubts, leave nothing to count.
    """
    labels: tuple[str, ...]
    """Labels it rests on."""
    not_assessed: str = ""
    """Why there is no grade."""
    not_assessed_zh: str = ""
    caveats: tuple[str, ...] = ()
    """What would make a pathologist's answer differ."""
    caveats_zh: tuple[str, ...] = ()
    """The same in Chinese, one for one."""

    @property
    def is_certain(self) -> bool:
        """Whether there is a grade, and the doubts leave no other."""
        return self.grade is not None and len(self.possible) == 1

    @property
    def n_with(self) -> int | None:
        """Glomeruli with what the grade rests on; None without a grade, or with several counts."""
        return self.counted[0].n_with if len(self.counted) == 1 else None


@dataclass(frozen=True)
class RuleResult:
    """All answers of a rule set for one case."""

    rule_set: RuleSet
    items: tuple[ItemResult, ...]
    n_glomeruli: int
    n_range: tuple[int, int]
    """Fewest and most glomeruli, as some images may show none."""

    @property
    def has_enough(self) -> bool:
        """Whether there are the glomeruli that the source asks for."""
        return self.n_glomeruli >= self.rule_set.min_glomeruli

    @property
    def may_have_too_few(self) -> bool:
        """Whether there are enough only if each image shows a glomerulus."""
        return self.has_enough and self.n_range[0] < self.rule_set.min_glomeruli

    @property
    def too_few(self) -> str:
        """Say that the source asks for more glomeruli, surely or perhaps; empty if it does not."""
        least = self.rule_set.min_glomeruli
        if not self.has_enough:
            return f"Only {self.n_glomeruli} of the {least} glomeruli that the source asks for."
        if self.may_have_too_few:
            return (
                f"Perhaps only {self.n_range[0]} of the {least} glomeruli that the source asks "
                "for, given the doubts."
            )
        return ""

    @property
    def not_assessed(self) -> tuple[ItemResult, ...]:
        """Questions without an answer."""
        return tuple(result for result in self.items if result.grade is None)


def apply_rule_set(
    rule_set: RuleSet, glomeruli: Sequence[Glomerulus], taxonomy: Taxonomy
) -> RuleResult:
    """Answer every question of a rule set.

    Parameters
    ----------
    rule_set : RuleSet
    glomeruli : sequence of Glomerulus
        Of one case.
    taxonomy : Taxonomy

    Returns
    -------
    RuleResult
    """
    n_sure = sum(1 for one in glomeruli if not one.may_be_none)
    n_most = sum(1 for one in glomeruli if not one.must_be_none)
    return RuleResult(
        rule_set,
        tuple(_answer(rule_set, item, glomeruli, taxonomy) for item in rule_set.items),
        sum(1 for one in glomeruli if one.called is not None),
        (n_sure, n_most),
    )


def _answer(
    rule_set: RuleSet, item: Item, glomeruli: Sequence[Glomerulus], taxonomy: Taxonomy
) -> ItemResult:
    if item.never:
        return _without_grade(item, item.never, item.never_zh or item.never)
    matched = {key: matching_labels(found, taxonomy) for key, found in rule_set.findings.items()}
    named = dict.fromkeys(
        key for keys in (item.counts, *(grade.counts for grade in item.grades)) for key in keys
    )
    labels = tuple(
        key for key in taxonomy.label_ids if any(key in matched[name][0] for name in named)
    )
    if named and not labels:
        lacking = [rule_set.findings[key] for key in named]
        return _without_grade(
            item,
            f"the model has no label for {', '.join(one.name.lower() for one in lacking)}",
            f"模型没有以下标签：{'、'.join(one.name_zh for one in lacking)}",
        )
    view = _View(item, {key: found for key, (found, _) in matched.items()})
    called = view.counts([one.called for one in glomeruli])
    caveats = [*_caveats(rule_set, item, named, matched), *_proposed(item, glomeruli)]
    texts, texts_zh = tuple(en for en, _ in caveats), tuple(zh for _, zh in caveats)
    possible = view.reachable_grades(glomeruli)
    if called[0] == 0 and item.counts:
        reason = ("no glomerulus in the denominator", "没有可计入分母的肾小球")
        if not glomeruli:
            reason = ("no glomerulus to count", "没有可计数的肾小球")
        return ItemResult(item, None, (), 0, possible, labels, *reason, texts, texts_zh)
    grade = view.grade(called)
    counted = view.counted(grade, called, rule_set.findings)
    return ItemResult(
        item, grade, counted, called[0], possible, labels, caveats=texts, caveats_zh=texts_zh
    )


def _without_grade(item: Item, reason: str, reason_zh: str) -> ItemResult:
    return ItemResult(item, None, (), 0, (), (), reason, reason_zh)


def _proposed(item: Item, glomeruli: Sequence[Glomerulus]) -> list[tuple[str, str]]:
    """Say of a number of glomeruli that a program chose what was counted."""
    n_proposed = sum(any(call.is_proposed for call in one.calls) for one in glomeruli)
    if not n_proposed or all(grade.at_least_n is None for grade in item.grades):
        return []
    text = (
        f"{n_proposed} of {len(glomeruli)} glomeruli were proposed by a detector and drawn by no "
        "person: some may be missed, some no glomeruli, some counted on each section anew."
    )
    text_zh = (
        f"{len(glomeruli)} 个肾小球中有 {n_proposed} 个由检测器提出，未经人工勾画："
        "可能有遗漏、误认，或在每张切片上重复计数。"
    )
    return [(text, text_zh)]


def _caveats(
    rule_set: RuleSet,
    item: Item,
    named: Iterable[str],
    matched: dict[str, tuple[frozenset[str], bool]],
) -> list[tuple[str, str]]:
    """Say in English and Chinese what would make a pathologist's answer differ."""
    found = []
    for finding, (labels, is_wider) in ((rule_set.findings[key], matched[key]) for key in named):
        if not labels:
            en = f"No label for {finding.name.lower()}: glomeruli with it alone are not counted."
            found.append((en, f"没有“{finding.name_zh}”标签：仅有该病变的肾小球未计入。"))
        elif is_wider:
            found.append((finding.wider_note, finding.wider_note_zh or finding.wider_note))
    without = [rule_set.findings[key] for key in item.leaves_out if not matched[key][0]]
    return found + [
        (
            f"No label for {one.name.lower()}: such glomeruli stay in the denominator.",
            f"没有“{one.name_zh}”标签：此类肾小球仍计入分母。",
        )
        for one in without
    ]


class _View:
    """A case as one question sees it: each reading becomes a row of zeros and ones."""

    def __init__(self, item: Item, labels: dict[str, frozenset[str]]) -> None:
        self.item = item
        self.left_out = frozenset[str]().union(*(labels[key] for key in item.leaves_out))
        self.of_grade = [
            frozenset[str]().union(*(labels[key] for key in grade.counts or item.counts))
            for grade in item.grades
        ]

    def row(self, reading: LabelSet) -> Counts:
        """Return what one glomerulus adds to the counts."""
        if reading is None or reading & self.left_out:
            return (0,) * (len(self.of_grade) + 1)
        return (1, *(int(bool(reading & labels)) for labels in self.of_grade))

    def counts(self, readings: Iterable[LabelSet]) -> Counts:
        """Return the counts of a case whose readings are settled."""
        total = (0,) * (len(self.of_grade) + 1)
        for reading in readings:
            total = _added(total, self.row(reading))
        return total

    def grade(self, counts: Counts) -> Grade:
        """Return the first grade that fits."""
        fitting = (
            grade
            for place, grade in enumerate(self.item.grades)
            if _fits(grade, counts[1 + place], counts[0])
        )
        return next(fitting)  # the last grade has no limits

    def counted(
        self, grade: Grade, counts: Counts, findings: Mapping[str, Finding]
    ) -> tuple[FindingCount, ...]:
        """Return the count that decided for a grade; for the rest, all that decided against it."""
        found: dict[tuple[str, ...], FindingCount] = {}
        for place, one in enumerate(self.item.grades):
            keys = one.counts or self.item.counts
            decided = grade.is_rest or one == grade
            if decided and not one.is_rest and self.of_grade[place]:
                named = () if keys == self.item.counts else tuple(findings[key] for key in keys)
                found[keys] = FindingCount(named, counts[1 + place])
        # What the question names comes first: it stands without a name of its own.
        return tuple(sorted(found.values(), key=lambda one: len(one.findings) > 0))

    def reachable_grades(self, glomeruli: Sequence[Glomerulus]) -> tuple[Grade, ...]:
        """Return every grade that some choice of the readings gives."""
        groups = (self.left_out, *self.of_grade)
        possible = [one.possible(groups) for one in glomeruli]
        options = Counter(
            frozenset(self.row(one) for one in readings)
            for readings in possible
            if readings is not None
        )
        states = _reachable(options, len(self.of_grade) + 1)
        if states is None or None in possible:
            # So many doubts leave hardly a grade out: say that none is.
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


def _reachable(options: Counter[frozenset[Counts]], width: int) -> set[Counts] | None:
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


def _added(one: Counts, other: Counts) -> Counts:
    return tuple(a + b for a, b in zip(one, other, strict=True))
