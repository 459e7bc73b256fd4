import re
from pathlib import Path

import typer

from glomerulab.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"api.md", "commands.md"}
"""Pages that building the docs writes."""
PAGES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_options" not in path.parts and path.name not in GENERATED
}
PROSE = "\n".join(PAGES.values())


def _commands() -> dict[str, typer.core.TyperCommand]:
    """Return every leaf command by its name, such as ``slide info``."""
    found = {}

    def visit(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if not children:
            found[" ".join(path)] = command
        for name, child in (children or {}).items():
            visit(child, (*path, name))

    visit(typer.main.get_command(app), ())
    return found


COMMANDS = _commands()


def test_the_docs_show_every_command() -> None:
    assert [name for name in COMMANDS if f"glomerulab {name}" not in PROSE] == []


def test_every_option_has_a_help_text_for_the_generated_tables() -> None:
    without = [
        f"{name} {option.opts[0]}"
        for name, command in COMMANDS.items()
        for option in command.params
        if option.param_type_name == "option" and not option.help
    ]
    assert without == []


def test_included_option_tables_are_those_of_commands() -> None:
    included = set(re.findall(r"_options/([\w-]+)\.md", PROSE))
    assert included - {name.replace(" ", "-") for name in COMMANDS} == {"spellings"}


def test_mentioned_options_exist() -> None:
    known = {
        name
        for command in COMMANDS.values()
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    blocks = re.findall(r"^\s*glomerulab [^\n]+(?:\\\n[^\n]+)*", PROSE, re.MULTILINE)
    mentioned = {name for block in blocks for name in re.findall(r"(?<=\s)--[a-z][\w-]+", block)}
    assert mentioned - known - {"--help", "--version"} == set()


def test_each_command_of_the_readme_reads_what_is_given_or_was_written_before() -> None:
    section = PAGES[Path("README.md")].split("## Use it on your slides")[1].split("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    assert "activate" in block[1]
    prose = section.replace(block[1], "")
    written: list[str] = []
    for line in block[1].splitlines():
        words = line.split()[1:]
        outputs = [words[n + 1] for n, word in enumerate(words) if word in {"--out", "--db"}]
        paths = [word for word in words if re.search(r"[/.][a-z]|/$|^run$|^predictions$", word)]
        for path in paths:
            is_made = any(path == one or path.startswith(f"{one}/") for one in written)
            is_shipped = (ROOT / path).exists() or path.startswith(".venv/")
            assert path in outputs or is_made or is_shipped or f"`{path}`" in prose, (line, path)
        written += outputs


def test_the_chinese_page_of_a_labelling_study_follows_the_english_one() -> None:
    pages = [PAGES[Path("docs") / folder / "annotate.md"] for folder in ("how-to", "zh")]
    code = [re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for page in pages]
    english, chinese = (re.sub(r" +#.*", "", "".join(blocks)) for blocks in code)
    assert chinese == english
    prose = [re.sub(r"```.*?```", "", page, flags=re.DOTALL) for page in pages]
    sections = [re.findall(r"^#+ ", text, re.MULTILINE) for text in prose]
    assert sections[1] == sections[0]
    in_english, in_chinese = (set(re.findall(r"`([^`\n]+)`", text)) for text in prose)
    assert in_english - in_chinese == set()


def test_the_chinese_options_of_a_labelling_study_are_those_of_the_command() -> None:
    page = PAGES[Path("docs/zh/annotate.md")]
    rows = re.findall(r"^\| `(--[\w-]+)` \| .+? \| (?:`(.+)`)?", page, re.MULTILINE)
    options = [
        (option.opts[0], "" if option.default is None or option.is_flag else f"{option.default}")
        for option in COMMANDS["annotate create"].params
        if option.param_type_name == "option" and option.name != "help"
    ]
    assert rows == options


def test_mentioned_decisions_exist() -> None:
    numbers = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    texts = [PROSE, *(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))]
    mentioned = {number for text in texts for number in re.findall(r"decisions? (\d{4})", text)}
    assert mentioned - numbers == set()


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page}: {target}"
        for page, text in PAGES.items()
        for target in re.findall(r"\]\(([^)#\s]+\.(?:md|png|jpg))[)#]", text)
        if "://" not in target
        and Path(target).name not in GENERATED
        and not (ROOT / page.parent / target).exists()
    ]
    assert broken == []
