import numpy as np
import pytest

from glomerulab.phantom.canvas import Canvas, Ink
from glomerulab.phantom.materials import Material, material_table
from glomerulab.phantom.nuclei import nuclei_table, paint_nuclei, spread_out
from glomerulab.phantom.texture import noise_bank


def _canvas(side: int = 64) -> Canvas:
    return Canvas(
        np.zeros((2, side, side), np.float32),
        np.zeros((side, side), np.uint8),
        np.zeros((side, side), np.uint8),
        0.0,
        0.0,
        0.5,
    )


def test_a_nucleus_is_painted_where_and_as_large_as_its_table_says(rng):
    canvas = _canvas()
    table = nuclei_table(
        np.array([[20.0, 10.0]]), half_axes_um=(4.0, 3.0), angles=np.array([0.0]), rng=rng
    )
    paint_nuclei(canvas, table, Ink(material_table("HE"), noise_bank()))
    painted = canvas.structure == Material.NUCLEUS
    rows, columns = np.nonzero(painted)
    assert columns.mean() * 0.5 == pytest.approx(20.0, abs=0.8)
    assert rows.mean() * 0.5 == pytest.approx(10.0, abs=0.8)
    area = painted.sum() * 0.25
    assert area == pytest.approx(np.pi * table[0, 2] * table[0, 3], rel=0.25)
    assert canvas.amounts[0][painted].mean() > 0.5


def test_nuclei_outside_the_view_leave_it_blank(rng):
    canvas = _canvas()
    table = nuclei_table(
        np.array([[-20.0, 10.0], [200.0, 10.0]]),
        half_axes_um=(3.0, 2.0),
        angles=np.zeros(2),
        rng=rng,
    )
    paint_nuclei(canvas, table, Ink(material_table("PAS"), noise_bank()))
    assert not canvas.structure.any()


def test_overlapping_nuclei_are_left_out_but_never_the_first(rng):
    places = np.zeros((6, 2))
    places[3:] = [[20, 0], [40, 0], [40.5, 0]]
    table = nuclei_table(places, half_axes_um=(3.0, 3.0), angles=np.zeros(6), rng=rng)
    assert spread_out(table, n_first=2).tolist() == [True, True, False, True, True, False]
