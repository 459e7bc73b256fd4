import numpy as np
import pytest
import pyvips

from glomerulab.errors import SlideError
from glomerulab.slides.tiff_structure import (
    Directory,
    Tag,
    block_ranges,
    blocks,
    read_tiff,
    write_tiff,
)


@pytest.mark.parametrize("is_big", [False, True])
def test_rewriting_keeps_every_tag_and_every_compressed_block(tmp_path, rng, is_big):
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    source, target = tmp_path / "a.tiff", tmp_path / "b.tiff"
    pyvips.Image.new_from_array(pixels).tiffsave(
        str(source), tile=True, pyramid=True, compression="jpeg", bigtiff=is_big
    )
    before = read_tiff(source)
    assert before.is_big == is_big
    write_tiff(before.directories, source, target, is_big=is_big)
    after = read_tiff(target)
    assert len(after.directories) == len(before.directories) > 1
    for old, new in zip(before.directories, after.directories, strict=True):
        assert list(blocks(source, old)) == list(blocks(target, new))
        assert old.tags.keys() == new.tags.keys()
        assert all(old.tags[code] == new.tags[code] for code in old.tags if code != 324)
    np.testing.assert_array_equal(
        pyvips.Image.new_from_file(str(target)).numpy(),
        pyvips.Image.new_from_file(str(source)).numpy(),
    )


def test_a_big_endian_file_is_read_and_written(tmp_path):
    strip = Tag(4, 1, b"\0\0\0\x08")
    tags = {256: Tag(3, 1, b"\0\x02"), 273: strip, 279: Tag(4, 1, b"\0\0\0\x04")}
    source, target = tmp_path / "a.tiff", tmp_path / "b.tiff"
    source.write_bytes(b"MM\0*\0\0\0\x08ABCD")
    write_tiff([Directory(tags, ">")], source, target, is_big=False)
    (directory,) = read_tiff(target).directories
    assert directory.order == ">"
    assert directory.numbers(256) == (2,)
    assert list(blocks(target, directory)) == [b"ABCD"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged|not a TIFF"),
        (b"PNG", "not a TIFF"),
        (b"II*\0\xff\xff\0\0", "damaged"),
        (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "circle"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, reason):
    (tmp_path / "a.tiff").write_bytes(content)
    with pytest.raises(SlideError, match=reason):
        read_tiff(tmp_path / "a.tiff")


def test_a_file_cut_short_is_refused(tmp_path, make_slide):
    slide = make_slide()
    directories = read_tiff(slide).directories
    start = max(block_ranges(slide, directories[0]))[0]
    (tmp_path / "cut.tiff").write_bytes(slide.read_bytes()[: start + 3])
    with pytest.raises(SlideError, match="ends before"):
        write_tiff(directories, tmp_path / "cut.tiff", tmp_path / "copy.tiff", is_big=False)


def test_offsets_without_lengths_are_refused(tmp_path):
    with pytest.raises(SlideError, match="1 offsets and 0 lengths"):
        block_ranges(tmp_path / "a", Directory({273: Tag(4, 1, b"\x08\0\0\0")}, "<"))
