"""Rule sets: versioned TOML files that turn counts of glomeruli into grades.

A finding is what a rule counts. It is matched to the taxonomy's labels by HPO code, so that the
same rules apply to every taxonomy. `glomerulab.cases.grading` applies them.
"""

import re
import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from glomerulab.cases.structures import MeasureKey
from glomerulab.errors import ConfigError
from glomerulab.runtime.files import read_utf8
from glomerulab.runtime.messages import first_problem
from glomerulab.taxonomy import Taxonomy

__all__ = ["BUILT_IN_RULE_SETS", "Grade", "RuleSet", "load_rule_set"]

BUILT_IN_RULE_SETS = (
    "adequacy",
    "mest_c_like",
    "isn_rps_like",
    "berden",
    "crescentic_gn",
    "japanese_h_grade",
    "banff_like",
)
"""Names that `load_rule_set` takes, in the order of a report."""

NOT_IN_CODES = re.compile(r"[\s\\\x00-\x1f\x7f-\x9f]+")


def _fraction(value: object) -> object:
    # By its text: 0.1 in a file is a tenth, not the nearest binary number.
    return Fraction(str(value)) if isinstance(value, int | float) else value


Share = Annotated[Fraction, BeforeValidator(_fraction), Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Finding(_Strict):
    """A histological finding of a glomerulus."""

    name: str
    name_zh: str
    hpo: tuple[str, ...] = ()
    """Codes of labels with exactly this meaning."""
    wider: tuple[str, ...] = ()
    """Codes of labels that include more; used with `wider_note` if no label matches exactly."""
    wider_note: str = ""
    wider_note_zh: str = ""
    ids: tuple[str, ...] = ()
    """Label ids with this meaning and without a code, such as ``normal``."""


class Grade(_Strict):
    """A grade and its limits; a grade without limits applies to all other cases."""

    grade: str
    grade_zh: str = ""
    """For grades that are words, not symbols such as ``M1``."""
    name: str = ""
    name_zh: str = ""
    counts: tuple[str, ...] = ()
    """Findings of which any one counts; by default those of the item."""
    at_least: Share | None = None
    """Smallest share of glomeruli."""
    above: Share | None = None
    """Share of glomeruli that must be exceeded."""
    at_least_n: int | None = None
    """Smallest number of glomeruli, whatever they show."""

    @property
    def is_rest(self) -> bool:
        """Whether it has no limits."""
        return self.at_least is None and self.above is None and self.at_least_n is None


class Item(_Strict):
    """One item of a rule set, graded by the first of its grades that fits."""

    id: str
    name: str
    name_zh: str
    counts: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    """Findings whose glomeruli are left out of the denominator."""
    grades: tuple[Grade, ...] = ()
    measure: MeasureKey | None = None
    """What of outlines grades it, in place of glomeruli; its share or number has the limits."""
    never: str = ""
    """Why counts of glomeruli cannot grade it; then it has no grades, or only by its measure."""
    never_zh: str = ""

    @model_validator(mode="after")
    def _ends_in_a_rest(self) -> "Item":
        if self.measure is not None:
            if not self.never or self.counts or any(grade.counts for grade in self.grades):
                raise ValueError(f"{self.id}, which is measured, needs never and takes no counts")
        elif self.never:
            return self
        if not self.grades or not self.grades[-1].is_rest:
            raise ValueError(f"the last grade of {self.id} must be without limits")
        if any(grade.is_rest for grade in self.grades[:-1]):
            raise ValueError(f"only the last grade of {self.id} can be without limits")
        return self


class RuleSet(_Strict):
    """A classification, as far as counts of glomeruli support it."""

    id: str
    version: str
    name: str
    name_zh: str
    source: str
    """Publication of the thresholds."""
    min_glomeruli: int = 0
    """Smallest number of glomeruli that the source requires."""
    note: str = ""
    note_zh: str = ""
    findings: dict[str, Finding] = Field(default_factory=dict)
    items: tuple[Item, ...]

    @model_validator(mode="after")
    def _names_only_its_findings(self) -> "RuleSet":
        for item in self.items:
            named = {*item.counts, *item.leaves_out}
            named.update(*(grade.counts for grade in item.grades))
            unknown = sorted(named - set(self.findings))
            if unknown:
                raise ValueError(f"item {item.id} names unknown findings: {', '.join(unknown)}")
        return self

    def code(self, item: Item, grade: Grade | None = None) -> str:
        """Return the code of an item or grade in DICOM SR and FHIR, such as ``mest_c_like/1.0/C``.

        A grade has the same code in every report, whatever the case.
        """
        parts = (self.id, self.version, item.id, *(() if grade is None else (grade.grade,)))
        return code_of(*parts)


def code_of(*parts: str) -> str:
    """Join the parts of a code, without blanks, backslashes and control characters."""
    return NOT_IN_CODES.sub("_", "/".join(parts))


def load_rule_set(name_or_path: str | Path) -> RuleSet:
    """Read a rule set.

    Parameters
    ----------
    name_or_path : str or Path
        One of `BUILT_IN_RULE_SETS`, or a TOML file.

    Raises
    ------
    ConfigError
        If the file is missing or invalid; the message names the key.
    """
    where = str(name_or_path)
    try:
        if where in BUILT_IN_RULE_SETS:
            folder = resources.files("glomerulab.cases").joinpath("rule_sets")
            text = folder.joinpath(f"{where}.toml").read_text("utf-8")
        else:
            built_in = ", ".join(BUILT_IN_RULE_SETS)
            text = read_utf8(
                name_or_path,
                "rule set",
                error=ConfigError,
                way_out=f"give a TOML file or one of the built-in ones ({built_in})",
            )
        return RuleSet.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ConfigError(
            f"the rule set is invalid: {first_problem(error)}", where=where
        ) from error
    except (ValueError, RecursionError) as error:  # not TOML, or a number of too many digits
        raise ConfigError(f"the rule set is not valid TOML: {error}", where=where) from error


def matching_labels(finding: Finding, taxonomy: Taxonomy) -> tuple[frozenset[str], bool]:
    """Return the labels of a taxonomy that match a finding."""
    exact = {
        label.id for label in taxonomy.labels if label.hpo in finding.hpo or label.id in finding.ids
    }
    if exact:
        return frozenset(exact), False
    wider = {label.id for label in taxonomy.labels if label.hpo in finding.wider}
    return frozenset(wider), bool(wider)
