import re

import pytest
from matplotlib import font_manager
from PIL import Image

from glomerulab.evaluation.figures.curves import AreaText, draw_precision_recall, draw_roc
from glomerulab.evaluation.figures.style import (
    CJK_FONTS,
    COLOURS,
    FigureFiles,
    figure_fonts,
    figure_names,
    find_cjk_font,
    new_figure,
    plain_axes,
    save_figure,
    save_figure_files,
)
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy
from tests.support.eval_sets import random_softmax


def _draw():
    figure = new_figure(3.0, 2.0)
    plain_axes(figure.subplots(), title="κ", x_label="x", y_label="y").plot([0, 1], [1, 0])
    return figure


def test_png_and_svg_are_written_at_print_resolution(tmp_path):
    png, svg = save_figure(_draw(), tmp_path, "curve")
    with Image.open(png) as image:
        assert image.size == (600, 400)
    assert svg.read_text(encoding="utf-8").startswith("<?xml")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first = [path.read_bytes() for path in save_figure(_draw(), tmp_path, "a")]
    assert [path.read_bytes() for path in save_figure(_draw(), tmp_path, "b")] == first


def test_letters_are_outlines_so_that_no_font_is_needed(tmp_path):
    _, svg = save_figure(_draw(), tmp_path, "curve")
    assert "<text" not in svg.read_text(encoding="utf-8")


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", COLOURS[:4])
def test_the_first_colours_contrast_with_white(colour):
    assert 1.05 / (_luminance(colour) + 0.05) > 2.5


PAPER = load_taxonomy("paper")


def _installed(monkeypatch, *names):
    fonts = [font_manager.FontEntry(name=name) for name in names]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


def test_english_needs_no_other_font():
    names = figure_names(PAPER)
    assert names.names[0] == "Normal"
    assert names.fonts == ("DejaVu Sans",)
    assert names.notice == ""


def test_chinese_is_taken_where_a_font_has_it(monkeypatch):
    _installed(monkeypatch, "DejaVu Sans", "SimHei", "Noto Sans CJK SC")
    names = figure_names(PAPER, "zh")
    assert names.names[0] == "正常肾小球"
    assert names.language == "zh"
    assert names.fonts == ("DejaVu Sans", "Noto Sans CJK SC")


def test_without_a_font_figures_are_english_with_a_notice(monkeypatch):
    _installed(monkeypatch, "DejaVu Sans")
    names = figure_names(PAPER, "zh")
    assert names.names[0] == "Normal"
    assert names.language == "en"
    assert "no font with Chinese" in names.notice


def test_a_label_without_a_chinese_name_keeps_all_english(monkeypatch):
    _installed(monkeypatch, "SimHei")
    taxonomy = Taxonomy("two", (Label(id="a", name="A", name_zh="甲"), Label(id="b", name="B")))
    names = figure_names(taxonomy, "zh")
    assert names.names == ("A", "B")
    assert "no Chinese name" in names.notice


def test_a_font_installed_after_matplotlib_made_its_list_is_found(monkeypatch):
    _installed(monkeypatch, "DejaVu Sans")
    added = []
    files = ["/fonts/Arial.ttf", "/fonts/NotoSansCJK-Regular.ttc"]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(
        font_manager.fontManager,
        "addfont",
        lambda path: (added.append(path.name), _installed(monkeypatch, "Noto Sans CJK SC")),
    )
    assert find_cjk_font() == "Noto Sans CJK SC"
    assert added == ["NotoSansCJK-Regular.ttc"]


@pytest.mark.skipif(find_cjk_font() is None, reason=f"none of {CJK_FONTS} is installed")
def test_chinese_is_drawn_without_a_missing_letter(tmp_path):
    names = figure_names(PAPER, "zh")
    with figure_fonts(names):  # a missing letter would be a warning, and warnings are errors
        figure = new_figure(3.0, 2.0)
        figure.subplots().set_title(" ".join(names.names))
        save_figure(figure, tmp_path, "title")
    assert (tmp_path / "title.png").stat().st_size > 0


def test_files_for_a_paper_have_the_stated_width_and_text_that_can_be_edited(tmp_path):
    figure = new_figure(5.6, 5.0)
    figure.subplots().set_xlabel("glomeruli")
    save_figure(figure, tmp_path, "curve")
    files = FigureFiles(("svg", "pdf", "tiff"), dpi=300, width_mm=85)
    paths = save_figure_files(figure, tmp_path, "curve", files)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    svg = paths[0].read_text(encoding="utf-8")
    assert float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)[1]) == pytest.approx(
        85 / 25.4 * 72
    )
    assert ">glomeruli</text>" in svg
    assert b"/FontFile2" in paths[1].read_bytes()
    with Image.open(paths[2]) as image:
        assert image.width == pytest.approx(85 / 25.4 * 300, abs=1)
        assert round(image.info["dpi"][0]) == 300


def test_a_narrow_figure_keeps_its_text_readable(tmp_path):
    figure = new_figure(5.6, 5.0)
    axes = figure.subplots()
    axes.set_xlabel("x", fontsize=9)
    save_figure_files(figure, tmp_path, "curve", FigureFiles(("svg",), width_mm=60))
    assert axes.xaxis.label.get_fontsize() == pytest.approx(7)


@pytest.mark.parametrize("draw", [draw_roc, draw_precision_recall])
def test_no_legend_is_over_a_curve(draw):
    eval_set = random_softmax()
    texts = [AreaText(name, "0.912 (0.801 to 0.987)") for name in "abcd"]
    figure = draw(eval_set, texts)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert axes.get_legend() is None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
