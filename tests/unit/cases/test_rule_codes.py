import pytest

from glomerulab.cases.rule_codes import grade_code, question_code
from glomerulab.cases.rules import BUILT_IN_RULE_SETS, Grade, load_rule_set


def test_a_code_can_be_read() -> None:
    rules = load_rule_set("mest_c_like")
    item = rules.items[-1]
    assert question_code(rules, item) == "mest_c_like/1.0/C"
    assert grade_code(rules, item, item.grades[0]) == "mest_c_like/1.0/C/C2"


def test_a_code_has_no_blank_and_no_backslash() -> None:
    rules = load_rule_set("adequacy")
    assert grade_code(rules, rules.items[0], Grade(grade="too \\ few")).endswith("/too_few")


@pytest.mark.parametrize("name", BUILT_IN_RULE_SETS)
def test_no_two_grades_share_a_code(name) -> None:
    rules = load_rule_set(name)
    codes = [grade_code(rules, item, one) for item in rules.items for one in item.grades]
    assert len(set(codes)) == len(codes)
