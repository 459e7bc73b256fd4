import numpy as np
import pytest

from glomerulab.phantom.stains import (
    Material,
    draw_stain_matrix,
    material_table,
    recompose,
)


def _degrees(first, second):
    return np.degrees(np.arccos(first @ second))


def test_every_material_has_its_row_in_order():
    table = material_table("HE")
    assert table.shape == (len(Material), 2)
    assert list(Material) == list(range(len(Material)))


def test_glass_is_unstained_and_nuclei_are_bluest():
    for stain in ("HE", "PAS"):
        table = material_table(stain)
        assert table[Material.GLASS].tolist() == [0.0, 0.0]
        assert table[:, 0].argmax() == Material.NUCLEUS


def test_membranes_and_matrix_are_pas_positive():
    pas = material_table("PAS")[:, 1]
    cytoplasm = pas[Material.PROXIMAL]
    for positive in (Material.CAPSULE, Material.LOOP_WALL, Material.MESANGIUM, Material.SCLEROSIS):
        assert pas[positive] > 2 * cytoplasm
    assert pas[Material.CRESCENT] < cytoplasm


def test_another_stain_is_refused():
    with pytest.raises(ValueError, match="HE or PAS"):
        material_table("PASM")


@pytest.mark.parametrize("stain", ["HE", "PAS"])
def test_drawn_columns_are_unit_vectors_in_the_positive_octant(stain, rng):
    for _ in range(50):
        matrix = draw_stain_matrix(stain, rng)
        assert np.linalg.norm(matrix, axis=0) == pytest.approx([1.0, 1.0], abs=1e-12)
        assert (matrix > 0).all()


@pytest.mark.parametrize("stain", ["HE", "PAS"])
def test_haematoxylin_comes_first_and_is_apart_from_the_second_stain(stain, rng):
    for _ in range(50):
        matrix = draw_stain_matrix(stain, rng)
        assert matrix[0, 0] > matrix[0, 1]
        assert _degrees(matrix[:, 0], matrix[:, 1]) > 12.0


def test_two_patients_differ_in_stain(rng):
    first, second = draw_stain_matrix("HE", rng), draw_stain_matrix("HE", rng)
    assert _degrees(first[:, 1], second[:, 1]) > 0.5


def test_recomposition_is_beer_lambert_with_the_natural_logarithm():
    concentrations = np.array([[[1.0]], [[0.5]]], np.float32)
    matrix = np.array([[0.6, 0.0], [0.8, 0.6], [0.0, 0.8]])
    light = recompose(concentrations, matrix, white=(240.0, 250.0, 255.0))
    assert light[0, 0] == pytest.approx(
        [240 * np.exp(-0.6), 250 * np.exp(-1.1), 255 * np.exp(-0.4)], rel=1e-5
    )


@pytest.mark.parametrize(
    ("concentrations", "matrix", "name"),
    [((3, 4, 4), (3, 2), "concentrations"), ((2, 4, 4), (2, 3), "stain_matrix")],
)
def test_a_wrong_shape_is_named(concentrations, matrix, name):
    with pytest.raises(ValueError, match=name):
        recompose(np.zeros(concentrations), np.zeros(matrix))
