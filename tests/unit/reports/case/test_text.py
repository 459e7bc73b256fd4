from typing import get_args

import pytest

from glomerulab.cases.calls import REASONS
from glomerulab.cases.corrections import OutdatedReason
from glomerulab.cases.rules import load_rule_set
from glomerulab.i18n.catalogue import catalogue
from glomerulab.reports.case import html
from glomerulab.reports.case.text import (
    OUTDATED_REASONS,
    grade_name,
    labels_name,
    translations_in,
    utc_text,
)
from glomerulab.reports.case.view import REVIEW_REASONS
from tests.support.cases import PAPER


def test_every_reason_has_a_text_in_both_languages() -> None:
    assert set(REVIEW_REASONS) == set(REASONS)
    assert set(OUTDATED_REASONS) == set(get_args(OutdatedReason))
    texts = {*REVIEW_REASONS.values(), *OUTDATED_REASONS.values()}
    assert texts <= set(catalogue("zh"))


@pytest.mark.parametrize(
    ("template", "function", "n"),
    [("case.typ", "t", 25), ("case.js", "translate", 5), ("case_review.js", "translate", 10)],
)
def test_every_text_of_a_template_is_in_the_chinese_catalogue(template, function, n) -> None:
    source = html.TEMPLATES.joinpath(template).read_text("utf-8")
    texts = translations_in(source, function, "zh")
    assert len(texts) >= n
    assert sorted(set(texts) - set(catalogue("zh"))) == []


def test_labels_and_grades_in_both_languages() -> None:
    both = frozenset({"cgn", "fsg"})
    assert labels_name(both, PAPER, "en") == "Segmental sclerosis + Crescent"
    assert labels_name(both, PAPER, "zh") == "节段性硬化 + 新月体形成"
    assert labels_name(None, PAPER, "en") == "not a glomerulus"
    assert labels_name(frozenset(), PAPER, "en") == "none of the labels"
    grade = load_rule_set("isn_rps_like").items[0].grades[0]
    assert grade_name(grade, "en") == "VI-like (globally sclerosed, 90 % or more)"
    assert "（" in grade_name(grade, "zh")


def test_times_of_other_zones_are_converted_to_utc() -> None:
    assert utc_text("2026-11-25T12:18:09+08:00") == "2026-11-25 04:18 UTC"
    assert utc_text("2026-11-25T04:18:09") == "2026-11-25 04:18 UTC"
    assert utc_text("at noon") == "at noon"
