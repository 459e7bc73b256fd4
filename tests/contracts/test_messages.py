"""All error messages: ``python tests/contracts/test_messages.py`` rewrites the snapshot."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "glomerulab"
SNAPSHOT = Path(__file__).with_name("messages.txt")

PREDICATE = re.compile(
    r"(is|are|was|were|has|have|had|holds?|bears?|names?|lacks?|needs?|cannot|must|changed|"
    r"missing(?! column)|exists|says?|lies?|stands?|gives|wants?|takes?|does|do|could|would|"
    r"ends?|begins?|leaves?|belongs?|comes?|came|shows?|knows?|failed|carries|contains?|reads?|writes?|refers?)\b"
)
"""Start of a message without a subject."""


def _error_classes() -> set[str]:
    """Return the names of all classes that derive from GlomerulabError, by their definitions."""
    bases: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
                bases.setdefault(node.name, set()).update(names)
    found = {"GlomerulabError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def _text(node: ast.expr) -> str:
    """Return a message with the names of what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value) + "}"
    return "{" + ast.unparse(node) + "}"


def messages() -> list[str]:
    """Return class and message of every error that the package raises, sorted."""
    classes = _error_classes()
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in classes:
                    found.add(f"{name}: {_text(node.args[0])}".replace("\n", " "))
    return sorted(found)


def test_messages_equal_the_snapshot() -> None:
    assert messages() == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_every_message_has_a_subject() -> None:
    texts = (line.partition(": ")[2] for line in messages())
    assert [text for text in texts if PREDICATE.match(text)] == []


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(messages()) + "\n", encoding="utf-8")
