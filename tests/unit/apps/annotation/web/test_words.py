import re
from importlib import resources
from pathlib import Path

from glomerulab.apps.annotation.web.words import chinese_words, script_words, translate

WEB = Path(str(resources.files("glomerulab.apps.annotation.web")))
BRACES = re.compile(r"\{(\w+)\}")


def _said() -> set[str]:
    """Every text that a template, script or route says, by reading them."""
    said: set[str] = set()
    for template in (WEB / "templates").glob("*.j2"):
        text = template.read_text(encoding="utf-8")
        said |= set(re.findall(r'\b_\(\s*"([^"]*)"', text))
        said |= set(re.findall(r"\b_\(\s*'([^']*)'", text))
    for script in (WEB / "static").glob("*.js"):
        said |= set(re.findall(r'say\(\s*"([^"]*)"', script.read_text()))
    for route in WEB.glob("routes_*.py"):
        said |= set(re.findall(r'(?:message|problem) = "([^"]*)"', route.read_text()))
    return said


def test_everything_that_is_said_can_be_said_in_chinese():
    said = _said()
    assert len(said) > 120
    assert sorted(said - set(chinese_words())) == []


def test_names_in_braces_are_the_same_in_both_languages():
    for english, chinese in chinese_words().items():
        assert set(BRACES.findall(english)) == set(BRACES.findall(chinese)), english


def test_english_is_its_own_translation_and_needs_no_words():
    assert translate("Note", "en") == "Note"
    assert translate("not in the list", "zh") == "not in the list"
    assert script_words("en") == {}
