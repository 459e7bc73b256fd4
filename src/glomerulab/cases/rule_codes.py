"""Codes of our own for the questions of rule sets and their grades, the same in SR and FHIR.

A code names the rule set, its version, the question and the grade, and nothing of the case: the
same grade has the same code in each report.
"""

import re

from glomerulab.cases.grading import FindingCount
from glomerulab.cases.rules import Grade, Item, RuleSet

__all__ = ["counted_code", "counted_name", "grade_code", "question_code"]

NOT_IN_CODES = re.compile(r"[\s\\\x00-\x1f\x7f-\x9f]+")


def question_code(rules: RuleSet, item: Item) -> str:
    """Return the code of a question, such as ``mest_c_like/1.0/C``."""
    return NOT_IN_CODES.sub("_", f"{rules.id}/{rules.version}/{item.id}")


def grade_code(rules: RuleSet, item: Item, grade: Grade) -> str:
    """Return the code of a grade, such as ``mest_c_like/1.0/C/C2``."""
    return NOT_IN_CODES.sub("_", f"{question_code(rules, item)}/{grade.grade}")


def counted_code(one: FindingCount) -> str:
    """Return the code of a count that a grade rests on, such as ``n_with/global_sclerosis``."""
    return NOT_IN_CODES.sub("_", "/".join(("n_with", *(f.name.lower() for f in one.findings))))


def counted_name(one: FindingCount) -> str:
    """Say what such a count holds."""
    if not one.findings:
        return "Glomeruli with a finding of the question"
    return "Glomeruli counted: " + " or ".join(finding.name for finding in one.findings)
