import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "glomerulab"
BANNED = {"utils", "helpers", "misc", "common", "core"}


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_modules_are_named_after_their_subject() -> None:
    names = {path.stem for path in SOURCE.rglob("*.py")}
    assert names & BANNED == set()


def test_no_module_is_part_of_an_import_cycle() -> None:
    paths = {
        ".".join(("glomerulab", *path.relative_to(SOURCE).with_suffix("").parts)): path
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {name: _imports(path) & paths.keys() for name, path in paths.items()}
    while leaves := [name for name, below in graph.items() if not below & graph.keys()]:
        for name in leaves:
            del graph[name]
    while roots := [name for name in graph if not any(name in below for below in graph.values())]:
        for name in roots:
            del graph[name]
    assert sorted(graph) == []


def test_no_test_imports_another_test() -> None:
    tests = ROOT / "tests"
    importing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in tests.rglob("*.py")
        for name in _imports(path)
        if any(part.startswith("test_") for part in name.split("."))
    ]
    assert importing == []
