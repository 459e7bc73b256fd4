"""Tables of a report as Markdown and LaTeX, for a paper."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glomerulab.reports.run.html import Table
from glomerulab.runtime.files import atomic_write

__all__ = ["write_paper_tables"]

LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "κ": r"$\kappa$",
        "†": r"\textsuperscript{\dag}",
        "“": "``",
        "”": "''",
        "\N{NO-BREAK SPACE}": "~",
        "−": "$-$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)
SYNTHETIC = "Synthetic images: the scores do not apply to patients."
RESEARCH = "Research use only."


def write_paper_tables(tables: Sequence[Table], path: Path, *, is_synthetic: bool) -> None:
    """Write tables as ``.md`` and ``.tex`` (booktabs); `path` has no suffix.

    A note says where the images are rendered (`is_synthetic`).
    """
    notice = f"{SYNTHETIC} {RESEARCH}" if is_synthetic else RESEARCH
    flat = [_flat(table) for table in tables]
    texts = {
        ".md": "\n".join(_markdown(table) for table in flat) + f"\n{notice}\n",
        ".tex": "\n".join(_latex(table) for table in flat) + f"\n% {notice}\n",
    }
    for suffix, text in texts.items():
        with atomic_write(path.with_name(f"{path.name}{suffix}")) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _flat(table: Table) -> Table:
    """Put the lines of a cell into one; of the first cell only the first line is kept."""
    rows = tuple(
        (row[0].partition("\n")[0], *(_one_line(cell) for cell in row[1:])) for row in table.rows
    )
    return replace(table, rows=rows)


def _one_line(cell: str) -> str:
    first, _, rest = cell.partition("\n")
    return f"{first} ({rest.replace(chr(10), ', ')})" if rest else first


def _markdown(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
    return f"{table.title}\n\n{body}\n\n{table.note}\n"


def _latex(table: Table) -> str:
    """Return a floating table; it needs the package booktabs."""
    rows = [" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in table.rows]
    header = " & ".join(name.translate(LATEX) for name in table.columns) + r" \\"
    lines = (
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{table.title.translate(LATEX)}. {table.note.translate(LATEX)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        header,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    )
    return "\n".join(lines) + "\n"
