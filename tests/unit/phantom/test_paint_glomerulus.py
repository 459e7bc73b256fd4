import numpy as np
import pytest

from glomerulab.phantom.anatomy import draw_glomerulus
from glomerulab.phantom.canvas import Canvas, Ink
from glomerulab.phantom.lesions import Lesions
from glomerulab.phantom.materials import Material, material_table
from glomerulab.phantom.paint_glomerulus import CGN_BIT, FSG_BIT, MSPGN_BIT, paint_glomerulus
from glomerulab.phantom.texture import noise_bank


def _painted(lesions: Lesions, seed: int = 0) -> Canvas:
    glomerulus = draw_glomerulus(lesions, np.random.default_rng(seed))
    canvas = Canvas(
        np.zeros((2, 440, 440), np.float32),
        np.zeros((440, 440), np.uint8),
        np.zeros((440, 440), np.uint8),
        -110.0,
        -110.0,
        0.5,
    )
    paint_glomerulus(canvas, glomerulus.shape(), Ink(material_table("PAS"), noise_bank()))
    return canvas


def test_a_normal_glomerulus_has_capsule_space_loops_and_mesangium():
    structure = _painted(Lesions()).structure
    inside = structure > 0
    for material in (
        Material.CAPSULE,
        Material.SPACE,
        Material.LOOP_WALL,
        Material.LOOP_LUMEN,
        Material.MESANGIUM,
        Material.TUFT_CELL,
    ):
        assert (structure == material).sum() > 0.01 * inside.sum(), material
    assert not np.isin(structure, [Material.SCLEROSIS, Material.CRESCENT]).any()


@pytest.mark.parametrize(
    ("lesions", "bit"),
    [(Lesions(mspgn=0.5), MSPGN_BIT), (Lesions(fsg=0.5), FSG_BIT), (Lesions(cgn=0.5), CGN_BIT)],
    ids=["mspgn", "fsg", "cgn"],
)
def test_a_lesion_map_holds_exactly_the_lesions_there_are(lesions, bit):
    assert set(np.unique(_painted(lesions).lesion_bits)) == {0, bit}


def test_without_lesions_the_lesion_map_is_empty():
    assert not _painted(Lesions()).lesion_bits.any()


def test_the_mesangium_grows_with_its_lesion():
    area = [
        (_painted(Lesions(mspgn=severity)).structure == Material.MESANGIUM).sum()
        for severity in (0.0, 0.1, 1.0)
    ]
    assert area[0] < area[1] < area[2]
    assert area[2] > 2 * area[0]


def test_a_scar_takes_up_more_pas_than_the_rest_of_the_tuft_and_has_lost_its_loops():
    canvas = _painted(Lesions(fsg=0.8))
    scar = canvas.lesion_bits == FSG_BIT
    tuft = ~scar & np.isin(canvas.structure, range(Material.TUFT_CELL, Material.SCLEROSIS))
    assert canvas.amounts[1][scar].mean() > 2 * canvas.amounts[1][tuft].mean()
    lumen = canvas.structure == Material.LOOP_LUMEN
    assert lumen[scar].mean() < 0.3 * lumen[tuft].mean()


def test_a_scar_adheres_to_the_capsule():
    canvas = _painted(Lesions(fsg=0.8))
    rows, columns = np.nonzero(canvas.lesion_bits == FSG_BIT)
    radius = np.hypot(rows - 220, columns - 220).max()
    capsule_rows, capsule_columns = np.nonzero(canvas.structure == Material.CAPSULE)
    near = np.hypot(capsule_rows[:, None] - rows[::20], capsule_columns[:, None] - columns[::20])
    assert near.min() <= 6.0
    assert radius > 120


def test_a_crescent_lies_between_capsule_and_tuft():
    canvas = _painted(Lesions(cgn=0.7))
    rows, columns = np.nonzero(canvas.lesion_bits == CGN_BIT)
    assert np.hypot(rows - 220, columns - 220).min() > 0.45 * 170
