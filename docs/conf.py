"""Sphinx: MyST pages, numpydoc reference, and a command reference made from the program itself."""

import types
from importlib.metadata import version as installed_version
from pathlib import Path

import fastapi  # noqa: F401 - autodoc imports as type checkers do, which its models do not survive
import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import glomerulab
from glomerulab.cli.main import app as command_line
from glomerulab.runtime.tables import SPELLINGS

project = "glomerulab"
author = "the glomerulab developers"
copyright = "2026, the glomerulab developers. Research use only"
version = release = installed_version("glomerulab")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_options"]
html_theme = "furo"
html_title = f"glomerulab {version}"
html_show_sourcelink = False
autodoc_typehints = "none"  # numpydoc shows types with shapes; signatures alone would repeat half
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
html_math_renderer = "mathml"  # what browsers show by themselves: the pages must open offline


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _option_rows(command: typer.core.TyperCommand) -> list[str]:
    """Return the rows of a table of a command's options: names, meaning, default."""
    rows = []
    for option in command.params:
        if option.param_type_name != "option" or option.name == "help" or option.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        default = option.default
        is_switch = default is None or default is False  # 0 is a default
        is_shown = not is_switch and default not in ((), []) and not callable(default)
        shown = f"`{getattr(default, 'value', default)}`" if is_shown else ""
        shown = "required" if option.required else shown
        rows.append(f"| {names} | {_escaped(option.help or '')} | {shown} |")
    return rows


def _command_section(command: typer.core.TyperCommand, path: tuple[str, ...]) -> list[str]:
    """Return a command's usage, description, arguments and options as Markdown."""
    with command.make_context(" ".join(path), [], resilient_parsing=True) as context:
        usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"## {' '.join(path)}", "", f"`{usage}`", ""]
    for paragraph in (command.help or "").strip().split("\n\n"):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        lines += ["```bash", example, "```", ""] if example != text else [_escaped(text), ""]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        for one in arguments:
            name = (one.metavar or one.name).upper()
            lines.append(f"| `{name}` | {_escaped(getattr(one, 'help', '') or '')} |")
        lines.append("")
    return lines


def _write_if_changed(target: Path, lines: list[str]) -> None:
    content = "\n".join(lines) + "\n"
    target.parent.mkdir(exist_ok=True)
    if not target.exists() or target.read_text(encoding="utf-8") != content:
        target.write_text(content, encoding="utf-8")


def write_command_reference() -> None:
    """Write the page of all commands, and one table of options per command for other pages."""
    here = Path(__file__).parent
    page = ["# Commands", "", "Written from the program itself when these pages are built.", ""]

    def visit(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name in sorted(children):
                visit(children[name], (*path, name))
            return
        rows = _option_rows(command)
        table = ["| option | meaning | default |", "|---|---|---|", *rows] if rows else []
        page.extend([*_command_section(command, path), *table, ""])
        _write_if_changed(here / "_options" / f"{'-'.join(path[1:])}.md", table)

    visit(typer.main.get_command(command_line), ("glomerulab",))
    _write_if_changed(here / "reference" / "commands.md", page)


def write_spellings() -> None:
    """Write the table of the accepted spellings of columns."""
    rows = [
        f"| `{name}` | {', '.join(f'`{s}`' for s in also)} |" for name, also in SPELLINGS.items()
    ]
    table = ["| column | also accepted |", "|---|---|", *rows]
    _write_if_changed(Path(__file__).parent / "_options" / "spellings.md", table)


def write_api_reference() -> None:
    """Write the page of the names that `import glomerulab` gives."""
    page = [
        "# Python interface",
        "",
        (
            "The names of `import glomerulab`, each loaded on first use. "
            "{doc}`../how-to/use-from-python` shows them at work."
        ),
        "",
    ]
    for name in glomerulab.__all__:
        value = getattr(glomerulab, name)
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        directive = [f".. {kind}:: {value.__module__}.{name}"]
        if isinstance(value, type):
            directive.append("   :members:")
        page += [f"## {name}", "", "```{eval-rst}", *directive, "```", ""]
    _write_if_changed(Path(__file__).parent / "reference" / "api.md", page)


def setup(app):
    """Register formulas as MathML, and leave type aliases to the pages that use them."""

    def visit_inline(translator, node):
        translator.body.append(tex2mathml(node.astext()))
        raise nodes.SkipNode

    def visit_block(translator, node):
        formula = tex2mathml(node.astext(), as_block=True)
        translator.body.append(f"<div class='math'>{formula}</div>")
        raise nodes.SkipNode

    def skip(_app, _kind, _name, member, skipped, _options):
        return True if isinstance(member, types.GenericAlias) else skipped

    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("autodoc-skip-member", skip)


write_command_reference()
write_spellings()
write_api_reference()
