import pytest

from glomerulab.phantom.materials import Material, material_table


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
