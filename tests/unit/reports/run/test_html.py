import re
from dataclasses import replace

from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.reports.run.html import Figure, GalleryItem, Page, Table, render_html, write_html

PAGE = Page(
    title="Evaluation of a <b>run</b>",
    is_synthetic=False,
    headline="correct on 90 %",
    summary=("how",),
    warnings=(EvaluationWarning("Few patients", "only 3"),),
    tables=(
        Table("Scores", ("Score", "Value"), (("Accuracy\nshare correct", "0.9"),), note="note"),
    ),
    figures=(Figure("ROC", "how to read it", "alt text", "data:image/svg+xml;base64,AA=="),),
    gallery=(
        GalleryItem("i1", "Normal", "Crescent", "95 %", "data:image/jpeg;base64,AA=="),
        GalleryItem("i2", "Normal", "Crescent", "94 %", None, "i2.png: not an image"),
    ),
    gallery_note="worst first",
    appendix=(),
    config_text='name = "<script>alert(1)</script>"',
)


def test_all_contents_are_on_the_page():
    html = render_html(PAGE)
    for text in (
        *("correct on 90 %", "how", "Few patients", "only 3", "Accuracy", "share correct", "note"),
        *("how to read it", "alt text", "i1", "i2.png: not an image", "worst first"),
    ):
        assert text in html


def test_texts_from_files_are_escaped():
    html = render_html(PAGE)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;run&lt;/b&gt;" in html


def test_the_page_loads_nothing():
    html = render_html(PAGE)
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_research_use_only_is_always_shown_and_synthetic_where_it_applies():
    assert "Research use only" in render_html(PAGE)
    assert "SYNTHETIC DATA" not in render_html(PAGE)
    assert "SYNTHETIC DATA" in render_html(replace(PAGE, is_synthetic=True))


def test_the_file_is_utf_8(tmp_path):
    write_html(replace(PAGE, headline="新月体形成"), tmp_path / "report.html")
    assert "新月体形成" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_collapsed_table_opens_by_a_click():
    table = Table("Checklist", ("Item", "Known"), (("1", "yes"),), is_collapsed=True)
    html = render_html(replace(PAGE, appendix=(table,)))
    assert "<summary>Show 1 items</summary>" in html
