import numpy as np
import pytest

from glomerulab.errors import ConfigError, GlomerulabError
from glomerulab.structures.classes import KNOWN_STRUCTURES, in_drawing_order, structure
from glomerulab.structures.maps import MapFrame, create_map, open_map, release

FRAME = MapFrame(("glomerulus", "tuft"), 30, 20, (1.0, 1.0), (2.0, 2.0), (60, 40))


def test_what_is_written_to_a_map_is_read_from_its_folder(tmp_path):
    created = create_map(tmp_path / "map", FRAME)
    created.likely[3:5, 7] = FRAME.bit("tuft")
    created.likely.flush()
    found = open_map(tmp_path / "map")
    assert found.frame == FRAME
    assert np.argwhere(found.likely == 2).tolist() == [[3, 7], [4, 7]]
    assert not found.core.any()


def test_what_was_written_outlives_its_release(tmp_path):
    created = create_map(tmp_path / "map", FRAME)
    for row in range(FRAME.height):
        created.likely[row] = row
        release(created.likely)
    expected = np.repeat(np.arange(FRAME.height)[:, np.newaxis], FRAME.width, axis=1)
    assert np.array_equal(created.likely, expected)
    assert np.array_equal(open_map(tmp_path / "map").likely, expected)


@pytest.mark.parametrize("damage", ["missing", "short", "other size", "no json"])
def test_a_damaged_map_is_refused(tmp_path, damage):
    folder = tmp_path / "map"
    create_map(folder, FRAME)
    likely = folder / "likely.npy"
    if damage == "missing":
        likely.unlink()
    elif damage == "short":
        likely.write_bytes(likely.read_bytes()[:50])
    elif damage == "other size":
        np.save(likely, np.zeros((3, 3), np.uint16))
    else:
        (folder / "map.json").write_text("[]")
    with pytest.raises(GlomerulabError) as caught:
        open_map(folder)
    assert caught.value.where == str(folder)


def test_structures_lie_in_drawing_order_and_own_ones_on_top():
    assert in_drawing_order(["tuft", "stone", "cortex", "tuft"]) == ["cortex", "tuft", "stone"]
    assert structure("blood_clot").name == "Blood clot"
    with pytest.raises(ConfigError):
        in_drawing_order(f"own_{number}" for number in range(17))


def test_each_structure_lies_within_a_known_one_below_it():
    ids = [one.id for one in KNOWN_STRUCTURES]
    for one in KNOWN_STRUCTURES:
        assert one.within is None or ids.index(one.within) < ids.index(one.id)
        assert one.name_in("zh") != one.name
