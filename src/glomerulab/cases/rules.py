"""Rule sets: how counted glomeruli become grades, each set a TOML file with its version.

A finding is what a rule counts; it is matched to the taxonomy's labels by HPO code, so that the
same rules serve every taxonomy. Pure words: nothing is counted here.
"""

import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from glomerulab.errors import ConfigError
from glomerulab.runtime.messages import first_problem
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "BUILT_IN_RULE_SETS",
    "Finding",
    "Grade",
    "Item",
    "RuleSet",
    "load_rule_set",
    "matching_labels",
]

BUILT_IN_RULE_SETS = (
    "adequacy",
    "mest_c_like",
    "isn_rps_like",
    "berden",
    "crescentic_gn",
    "japanese_h_grade",
)
"""Names that `load_rule_set` takes beside a path; in the order of a report."""


def _fraction(value: object) -> object:
    # By way of its text: 0.1 in a file means a tenth, not the nearest binary number.
    return Fraction(str(value)) if isinstance(value, int | float) else value


Share = Annotated[Fraction, BeforeValidator(_fraction), Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Finding(_Strict):
    """Something a pathologist sees in a glomerulus."""

    name: str
    name_zh: str
    hpo: tuple[str, ...] = ()
    """Codes of labels that mean just this."""
    wider: tuple[str, ...] = ()
    """Codes of labels that mean more than this; taken with `wider_note`."""
    wider_note: str = ""
    wider_note_zh: str = ""
    ids: tuple[str, ...] = ()
    """Label ids that mean this although they have no code, such as ``normal``."""


class Grade(_Strict):
    """One answer, and what it takes; without any limit it is the answer to all the rest."""

    grade: str
    grade_zh: str = ""
    """In Chinese, where the grade is a word and not a sign such as ``M1``."""
    name: str = ""
    name_zh: str = ""
    counts: tuple[str, ...] = ()
    """Findings of which any one counts; by default those of the item."""
    at_least: Share | None = None
    """Share of glomeruli from which on the grade is given."""
    above: Share | None = None
    """Share of glomeruli that must be exceeded."""
    at_least_n: int | None = None
    """Number of glomeruli, whatever they show."""

    @property
    def is_rest(self) -> bool:
        """Whether it takes all that no grade before it took."""
        return self.at_least is None and self.above is None and self.at_least_n is None


class Item(_Strict):
    """One question of a rule set; of its grades the first that fits is the answer."""

    id: str
    name: str
    name_zh: str
    counts: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    """Findings whose glomeruli do not stand in the denominator."""
    grades: tuple[Grade, ...] = ()
    never: str = ""
    """Why single glomeruli can never answer it; then it has no grades."""
    never_zh: str = ""

    @model_validator(mode="after")
    def _ends_in_a_rest(self) -> "Item":
        if self.never:
            return self
        if not self.grades or not self.grades[-1].is_rest:
            raise ValueError(f"the last grade of {self.id} must be without limits")
        if any(grade.is_rest for grade in self.grades[:-1]):
            raise ValueError(f"only the last grade of {self.id} can be without limits")
        return self


class RuleSet(_Strict):
    """A classification, as far as counted glomeruli carry it."""

    id: str
    version: str
    name: str
    name_zh: str
    source: str
    """Where the thresholds are printed."""
    min_glomeruli: int = 0
    """Fewer do not suffice, says the source."""
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
                raise ValueError(f"item {item.id} names no such finding: {', '.join(unknown)}")
        return self


def load_rule_set(name_or_path: str | Path) -> RuleSet:
    """Read a rule set.

    Parameters
    ----------
    name_or_path : str or Path
        One of `BUILT_IN_RULE_SETS`, or a TOML file.

    Returns
    -------
    RuleSet

    Raises
    ------
    ConfigError
        If it is not there, or breaks the rules of rule sets; the message names the key.
    """
    where = str(name_or_path)
    try:
        if where in BUILT_IN_RULE_SETS:
            folder = resources.files("glomerulab.cases").joinpath("rule_sets")
            text = folder.joinpath(f"{where}.toml").read_text("utf-8")
        else:
            text = Path(name_or_path).read_text(encoding="utf-8")
        return RuleSet.model_validate(tomllib.loads(text))
    except OSError as error:
        built_in = ", ".join(BUILT_IN_RULE_SETS)
        raise ConfigError(
            f"neither a readable file nor a built-in rule set ({built_in})", where=where
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=where) from error
    except ValidationError as error:
        raise ConfigError(first_problem(error), where=where) from error


def matching_labels(finding: Finding, taxonomy: Taxonomy) -> tuple[frozenset[str], bool]:
    """Return the labels of a taxonomy that stand for a finding.

    Parameters
    ----------
    finding : Finding
    taxonomy : Taxonomy

    Returns
    -------
    labels : frozenset of str
        Ids; empty if no label says it.
    is_wider : bool
        Whether they mean more than the finding, so that its note applies.
    """
    exact = {
        label.id for label in taxonomy.labels if label.hpo in finding.hpo or label.id in finding.ids
    }
    if exact:
        return frozenset(exact), False
    wider = {label.id for label in taxonomy.labels if label.hpo in finding.wider}
    return frozenset(wider), bool(wider)
