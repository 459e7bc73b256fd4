from pathlib import Path

import pytest
import typer

from glomerulab.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def _commands() -> dict[str, list[str]]:
    """Every leaf command with its long options, as `{"slide info": ["--json"]}`."""
    found: dict[str, list[str]] = {}

    def visit(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                visit(child, (*path, name))
            return
        options = [name for parameter in command.params for name in parameter.opts]
        found[" ".join(path)] = [name for name in options if name.startswith("--")]

    visit(typer.main.get_command(app), ())
    return found


COMMANDS = _commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_docs_show_every_command(command: str) -> None:
    assert f"glomerulab {command}" in PROSE


@pytest.mark.parametrize("command", COMMANDS)
def test_the_docs_mention_every_option(command: str) -> None:
    unmentioned = [name for name in COMMANDS[command] if name not in PROSE and name != "--help"]
    assert unmentioned == []
