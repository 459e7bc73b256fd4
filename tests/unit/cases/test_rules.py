from fractions import Fraction
from pathlib import Path

import pytest

from glomerulab.cases.rules import BUILT_IN_RULE_SETS, Grade, load_rule_set, matching_labels
from glomerulab.errors import ConfigError
from tests.support.cases import PAPER, WITH_GLOBAL


@pytest.mark.parametrize("name", BUILT_IN_RULE_SETS)
def test_every_built_in_rule_set_has_version_and_source(name: str) -> None:
    rules = load_rule_set(name)
    assert rules.id == name
    assert rules.version
    assert any(year in rules.source for year in ("2003", "2004", "2010", "2013", "2017", "2018"))


def test_thresholds_are_exact() -> None:
    berden = load_rule_set("isn_rps_like")
    assert berden.items[0].grades[0].at_least == Fraction(9, 10)


def test_a_label_is_found_by_its_code_and_a_wider_one_is_marked() -> None:
    rules = load_rule_set("mest_c_like")
    assert matching_labels(rules.findings["segmental"], PAPER) == (frozenset({"fsg"}), False)
    assert matching_labels(rules.findings["crescent"], PAPER) == (frozenset({"cgn"}), True)
    assert matching_labels(rules.findings["global"], PAPER) == (frozenset(), False)
    assert matching_labels(rules.findings["global"], WITH_GLOBAL) == (frozenset({"gs"}), False)


def test_an_unknown_rule_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mest_c_like"):
        load_rule_set(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        ('[{ grade = "a", above = 0 }]', "must be without limits"),
        ('[{ grade = "a" }, { grade = "b" }]', "only the last"),
        ('[{ grade = "a", above = 2 }, { grade = "b" }]', "must be at most 1, got 2"),
        ('[{ grade = "a", counts = ["x"] }]', "unknown findings: x"),
        ('[{ grade = "a" }]\nmeasure = "fibrosis"', "needs never"),
        ('[{ grade = "a" }]\nmeasure = "lakes"', "measure"),
    ],
)
def test_an_invalid_rule_set_is_refused(tmp_path: Path, grades: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'id = "own"\nversion = "1"\nname = "Own"\nname_zh = "自"\nsource = "us"\n'
        f'[[items]]\nid = "q"\nname = "Q"\nname_zh = "问"\ngrades = {grades}\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=message):
        load_rule_set(path)


def test_a_code_can_be_read() -> None:
    rules = load_rule_set("mest_c_like")
    item = rules.items[-1]
    assert rules.code(item) == "mest_c_like/1.0/C"
    assert rules.code(item, item.grades[0]) == "mest_c_like/1.0/C/C2"


def test_a_code_has_no_blank_and_no_backslash() -> None:
    rules = load_rule_set("adequacy")
    assert rules.code(rules.items[0], Grade(grade="too \\ few")).endswith("/too_few")


@pytest.mark.parametrize("name", BUILT_IN_RULE_SETS)
def test_no_two_grades_share_a_code(name) -> None:
    rules = load_rule_set(name)
    codes = [rules.code(item, one) for item in rules.items for one in item.grades]
    assert len(set(codes)) == len(codes)
