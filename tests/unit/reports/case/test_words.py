import tomllib
from importlib import resources

from glomerulab.cases.calls import REASONS
from glomerulab.cases.rules import load_rule_set
from glomerulab.reports.case.words import grade_name, moment, reading_words, words
from tests.support.cases import PAPER


def test_every_phrase_is_there_in_both_languages() -> None:
    text = resources.files("glomerulab.reports.case").joinpath("words.toml").read_text("utf-8")
    for key, phrase in tomllib.loads(text).items():
        assert set(phrase) == {"en", "zh"}, key
        assert all(phrase.values()), key


def test_every_reason_has_words() -> None:
    assert set(REASONS) <= set(words("zh"))


def test_readings_and_grades_in_both_languages() -> None:
    both = frozenset({"cgn", "fsg"})
    assert reading_words(both, PAPER, "en") == "Segmental sclerosis + Crescent"
    assert reading_words(both, PAPER, "zh") == "节段性硬化 + 新月体形成"
    assert reading_words(None, PAPER, "en") == "not a glomerulus"
    assert reading_words(frozenset(), PAPER, "en") == "none of the labels"
    grade = load_rule_set("isn_rps_like").items[0].grades[0]
    assert grade_name(grade, "en") == "VI-like (globally sclerosed, 90 % or more)"


def test_times_of_other_zones_are_told_in_utc() -> None:
    assert moment("2026-11-25T12:18:09+08:00") == "2026-11-25 04:18 UTC"
    assert moment("2026-11-25T04:18:09") == "2026-11-25 04:18 UTC"
    assert moment("at noon") == "at noon"
