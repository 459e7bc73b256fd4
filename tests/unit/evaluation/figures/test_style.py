import pytest
from PIL import Image

from glomerulab.evaluation.figures.style import COLOURS, new_figure, plain_axes, save_figure


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
def test_the_first_colours_stand_out_from_white(colour):
    assert 1.05 / (_luminance(colour) + 0.05) > 2.5
