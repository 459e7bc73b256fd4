from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "glomerulab"
UNIT = ROOT / "tests" / "unit"

# Commands are tested as commands, in tests/integration; __main__ and __init__ hold no logic.
MODULES = [
    path.relative_to(SOURCE)
    for path in sorted(SOURCE.rglob("*.py"))
    if not path.name.startswith("__") and path.relative_to(SOURCE).parts[0] != "cli"
]
TESTS = [path.relative_to(UNIT) for path in sorted(UNIT.rglob("test_*.py"))]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_test_file_of_its_name(module: Path) -> None:
    assert (UNIT / module.parent / f"test_{module.stem.lstrip('_')}.py").is_file()


@pytest.mark.parametrize("test_file", TESTS, ids=str)
def test_every_unit_test_file_has_a_module_of_its_name(test_file: Path) -> None:
    stem = test_file.stem.removeprefix("test_")
    folder = SOURCE / test_file.parent
    assert any((folder / f"{name}.py").is_file() for name in (stem, f"_{stem}"))
