from glomerulab.reports.run.html import Table
from glomerulab.reports.run.paper_tables import write_paper_tables

TABLE = Table(
    "Scores of a_b & c",
    ("Score", "95 % interval"),
    (("Cohen's κ\nagreement", "0.9\n0.8 to 1.0†"), ("Recall", "not defined")),
    note="100 %",
)


def test_markdown_has_one_line_per_row(tmp_path):
    write_paper_tables([TABLE], tmp_path / "scores", is_synthetic=True)
    lines = (tmp_path / "scores.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == "| Score | 95 % interval |"
    assert rows[2] == "| Cohen's κ | 0.9 (0.8 to 1.0†) |"
    assert len(rows) == 4
    assert "Synthetic" in lines[-1]


def test_latex_escapes_what_it_would_take_for_a_command(tmp_path):
    write_paper_tables([TABLE], tmp_path / "scores", is_synthetic=False)
    text = (tmp_path / "scores.tex").read_text(encoding="utf-8")
    assert r"a\_b \& c" in text
    assert r"100 \%" in text
    assert r"$\kappa$ & 0.9 (0.8 to 1.0\textsuperscript{\dag}) \\" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.isascii()
