"""Sphinx: MyST pages, numpydoc reference, and a command reference made from the program itself."""

import types
from importlib.metadata import version as installed_version
from pathlib import Path

import fastapi  # noqa: F401 - autodoc imports as type checkers do, which its models do not survive
import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from glomerulab.cli.main import app as command_line

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
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"glomerulab {version}"
html_show_sourcelink = False
autodoc_typehints = "none"  # numpydoc shows types with shapes; signatures alone would repeat half
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
html_math_renderer = "mathml"  # what browsers show by themselves: the pages must open offline


def write_command_reference() -> None:
    """Write one section per command from the program's own help."""
    pages = ["# Commands", "", "Made from `glomerulab --help` when these pages are built."]

    def visit(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name in sorted(children):
                visit(children[name], (*path, name))
            return
        with command.make_context(" ".join(path), [], resilient_parsing=True) as context:
            text = command.get_help(context)
        pages.extend(["", f"## {' '.join(path)}", "", "```text", text.strip(), "```"])

    visit(typer.main.get_command(command_line), ("glomerulab",))
    target = Path(__file__).parent / "reference" / "commands.md"
    content = "\n".join(pages) + "\n"
    if not target.exists() or target.read_text(encoding="utf-8") != content:
        target.write_text(content, encoding="utf-8")


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
