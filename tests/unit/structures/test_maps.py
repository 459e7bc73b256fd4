import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import ConfigError, GlomerulabError, OutputError
from glomerulab.structures.classes import KNOWN_STRUCTURES, in_drawing_order, structure
from glomerulab.structures.maps import (
    MapFrame,
    create_map,
    open_map,
    read_rows,
    read_window,
    write_window,
)

FRAME = MapFrame(("glomerulus", "tuft"), 30, 20, (1.0, 1.0), (2.0, 2.0), (60, 40))


def test_what_is_written_to_a_map_is_read_from_its_folder(tmp_path):
    created = create_map(tmp_path / "map", FRAME)
    write_window(created.likely, 3, 7, np.full((2, 1), FRAME.bit("tuft")))
    found = open_map(tmp_path / "map")
    assert found.frame == FRAME
    assert np.argwhere(found.likely == 2).tolist() == [[3, 7], [4, 7]]
    assert not found.core.any()


@given(st.data())
def test_windows_of_a_file_are_those_of_an_array(tmp_path_factory, data):
    height, width = FRAME.height, FRAME.width
    layer = create_map(tmp_path_factory.mktemp("map"), FRAME).likely
    expected = np.zeros((height, width), np.uint16)
    seeds = st.integers(0, 2**32 - 1)
    for _ in range(3):
        top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
        left, right = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
        rng = np.random.default_rng(data.draw(seeds))
        values = rng.integers(0, 2**16, (bottom - top, right - left), np.uint16)
        rows = rng.random(bottom - top) < 0.7
        write_window(layer, top, left, values, rows=rows)
        expected[top:bottom, left:right][rows] = values[rows]
        window = (top, bottom, left, right)
        np.testing.assert_array_equal(read_window(layer, *window), expected[top:bottom, left:right])
        np.testing.assert_array_equal(read_rows(layer, top, bottom), expected[top:bottom])
        in_memory = expected.copy()
        write_window(in_memory, top, left, values)
        np.testing.assert_array_equal(read_window(in_memory, *window), values)
    np.testing.assert_array_equal(layer, expected)


def test_rows_that_are_not_written_take_no_space(tmp_path):
    wide = MapFrame(("cortex",), 4096, 1000, (1.0, 1.0), (1.0, 1.0), (4096, 1000))
    layer = create_map(tmp_path / "map", wide).likely
    values = np.zeros((1000, 512), np.uint16)
    values[3] = 1
    write_window(layer, 0, 0, values, rows=values.any(axis=1))
    read_rows(layer, 0, 1000)
    assert (tmp_path / "map" / "likely.npy").stat().st_blocks * 512 <= 4 * 4096


@pytest.mark.parametrize("n_columns", [5, 30])
def test_a_file_that_ends_early_is_no_empty_map(tmp_path, monkeypatch, n_columns):
    layer = create_map(tmp_path / "map", FRAME).likely
    preadv = os.preadv

    def little(file, buffers, place):
        return preadv(file, [buffers[0][:7]], place)

    with monkeypatch.context() as patch:  # as a network file system
        patch.setattr(os, "preadv", little)
        write_window(layer, 0, 0, np.ones(layer.shape, np.uint16))
        assert read_window(layer, 0, 20, 0, n_columns).all()
        patch.setattr(os, "preadv", lambda *_: 0)
        with pytest.raises(GlomerulabError, match="early"):
            read_window(layer, 0, 20, 0, n_columns)
    os.truncate(tmp_path / "map" / "likely.npy", layer.offset + layer.nbytes // 2)
    with pytest.raises(GlomerulabError, match="segment") as caught:
        read_window(layer, 0, 20, 0, n_columns)
    assert caught.value.where == str(tmp_path / "map")


def test_a_part_of_a_layer_is_not_taken_for_the_whole(tmp_path):
    layer = create_map(tmp_path / "map", FRAME).likely
    for part in (layer[2:], layer[:, 3:], layer.T):
        with pytest.raises(AssertionError):
            read_rows(part, 0, 1)
        with pytest.raises(AssertionError):
            write_window(part, 0, 0, np.ones((1, 1), np.uint16))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_full_disk_is_an_error_of_the_slide_and_another_one_of_the_run(
    tmp_path, monkeypatch, number
):
    layer = create_map(tmp_path / "map", FRAME).likely

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)
    is_full = number in {errno.ENOSPC, errno.EDQUOT}
    with pytest.raises(GlomerulabError) as caught:
        write_window(layer, 0, 0, np.ones((1, 1), np.uint16))
    assert isinstance(caught.value, OutputError) != is_full
    assert ("make room" in str(caught.value)) == is_full
    assert os.strerror(number) in str(caught.value)


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
