"""The page of a cohort: counts, failures, grades, the slowest cases; of one size for any cohort."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glomerulab.cases.rules import BUILT_IN_RULE_SETS, load_rule_set
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.reports.html import page_environment
from glomerulab.runtime.files import atomic_write

__all__ = ["CohortFacts", "write_cohort_page"]

TEMPLATE = "cohort.html.j2"


@dataclass(frozen=True, slots=True)
class CohortFacts:
    """What the page shows."""

    created: str
    is_synthetic: bool
    """Whether any image was rendered by a program."""
    n_cases: int
    n_done: int
    n_failed: int
    n_images: int
    n_glomeruli: int
    n_referred: int
    """Images that a person must look at."""
    n_cases_referred: int
    """Cases with at least one of them."""
    n_failures: int
    """Lines of ``failures.csv``: cases, slides, regions and images."""
    reasons: tuple[tuple[str, int], ...]
    """Why cases failed, with how many; the most frequent first."""
    n_other_reasons: int
    """Reasons that are not listed."""
    grades: Mapping[str, tuple[tuple[str, int], ...]]
    """Cases by item and grade; ``?``: several are possible; empty: not assessed."""
    slowest: tuple[tuple[str, str, float], ...]
    """Case, name of its folder, seconds."""

    @property
    def n_open(self) -> int:
        """Cases that are neither done nor failed."""
        return self.n_cases - self.n_done - self.n_failed


def write_cohort_page(facts: CohortFacts, path: Path, *, language: Language = "en") -> None:
    """Write the page, which loads nothing."""
    page = (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            facts=facts,
            language=language,
            _=partial(translate, language=language),
            count=partial(_count, language),
            names=_names(language),
        )
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _names(language: Language) -> dict[str, str]:
    """Return items and grades of the built-in rule sets by their English."""
    found = {}
    for rules in map(load_rule_set, BUILT_IN_RULE_SETS):
        of = localized(rules, "name", language) + translate("sign|: ", language)
        for item in rules.items:
            found[f"{rules.name}: {item.name}"] = of + localized(item, "name", language)
            found |= {one.grade: localized(one, "grade", language) for one in item.grades}
    return found


def _count(language: Language, number: int, singular: str, plural: str) -> str:
    text = singular if number == 1 else plural
    return translate(text, language, n=f"{number:,}")
