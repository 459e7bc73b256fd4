import numpy as np
import pytest

from glomerulab.phantom.canvas import Canvas, Ink, cover, lay, pixel_span, put
from glomerulab.phantom.materials import Material, material_table
from glomerulab.phantom.texture import noise_bank


def test_cover_runs_from_whole_to_nothing_over_its_width():
    assert [cover(d, 1.0) for d in (-2.0, -0.25, 0.0, 0.25, 2.0)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_laying_mixes_by_share_and_names_what_prevails():
    ink = Ink(material_table("HE"), noise_bank())
    now = lay((0.0, 0.0, 0), ink, int(Material.BLOOD), 1.0, 0.25)
    assert now[1] == pytest.approx(0.25 * ink.uptake[Material.BLOOD, 1])
    assert now[2] == Material.GLASS
    assert lay(now, ink, int(Material.BLOOD), 1.0, 0.75)[2] == Material.BLOOD


def test_putting_leaves_the_rest_of_what_was_there():
    canvas = Canvas(
        np.ones((2, 1, 1), np.float32),
        np.zeros((1, 1), np.uint8),
        np.zeros((1, 1), np.uint8),
        0.0,
        0.0,
        1.0,
    )
    put(canvas, 0, 0, (0.0, 3.0, 7), 0.75)
    assert canvas.amounts[:, 0, 0].tolist() == [0.25, 2.5]
    assert canvas.structure[0, 0] == 7


def test_a_span_holds_the_object_and_stays_in_view():
    assert pixel_span(10.0, 2.0, 0.0, 0.5, 100) == (15, 26)
    assert pixel_span(0.0, 5.0, 0.0, 0.5, 4) == (0, 4)
    first, last = pixel_span(-100.0, 5.0, 0.0, 0.5, 4)
    assert first >= last
