import ast
import re
from importlib import resources
from pathlib import Path

from glomerulab.i18n.catalogue import catalogue, translate

SOURCE = Path(str(resources.files("glomerulab")))
BRACES = re.compile(r"\{(\w*)[^}]*\}")
CHINESE = re.compile(r"[\u3400-\u9fff]")
CALLS = {"translate", "_", "ScaleWarning"}


def _texts_of_code() -> set[str]:
    """Every text literal that a module, template or script passes to the translation."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            text = node.args[0]
            is_note = name == "of" and getattr(getattr(node.func, "value", None), "id", "") in {
                "Note",
                "RegionNote",
            }
            is_translated = name in CALLS or is_note
            if is_translated and isinstance(text, ast.Constant) and isinstance(text.value, str):
                found.add(text.value)
    for template in SOURCE.rglob("*.j2"):
        text = template.read_text(encoding="utf-8")
        found |= set(re.findall(r'\b_\(\s*"([^"]*)"', text))
        found |= set(re.findall(r"\b_\(\s*'([^']*)'", text))
    for script in (*SOURCE.rglob("static/*.js"), *SOURCE.rglob("templates/*.js")):
        found |= set(re.findall(r'\btranslate\(\s*"([^"]*)"', script.read_text(encoding="utf-8")))
    for route in SOURCE.rglob("routes_*.py"):
        text = route.read_text(encoding="utf-8")
        found |= set(re.findall(r'(?:message|problem) = "([^"]*)"', text))
    return found


def test_every_translated_text_is_in_the_chinese_catalogue() -> None:
    texts = _texts_of_code()
    assert len(texts) > 120
    assert sorted(texts - set(catalogue("zh"))) == []


def test_a_translation_keeps_the_names_in_braces() -> None:
    differing = [
        english
        for english, chinese in catalogue("zh").items()
        if set(BRACES.findall(english)) != set(BRACES.findall(chinese))
    ]
    assert differing == []


def test_english_is_its_own_translation() -> None:
    assert translate("Note", "en") == "Note"
    assert translate("not in the catalogue", "zh") == "not in the catalogue"
    assert catalogue("en") == {}


def test_no_python_file_holds_chinese() -> None:
    holders = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if CHINESE.search(path.read_text(encoding="utf-8"))
    ]
    assert sorted(holders) == []
