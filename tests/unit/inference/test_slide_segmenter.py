"""A slide is segmented in tiles, whatever their size, with flat memory and named failures."""

import re

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.inference.blending import TileSettings
from glomerulab.inference.slide_segmenter import segment_image, segment_slide
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.slide import open_slide
from tests.support.segmenters import ByColour, BySurroundings, disc_pixels, disc_slide

DISCS = [(400, 300, 90), (700, 500, 60), (1150, 620, 110)]
SMALL = TileSettings(side_px=192, overlap_px=64)


def segmented(path, segmenter, out, tiles=None, **how):
    with open_slide(path, **how) as slide:
        return segment_slide(slide, segmenter, out, tiles=tiles)


def test_a_network_of_single_pixels_gives_each_pixel_its_structure(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS)
    done = segmented(tmp_path / "s.tif", ByColour(), tmp_path / "map", SMALL)
    pixels = disc_pixels(DISCS)
    frame = done.map.frame
    assert (frame.width, frame.height, frame.mpp, frame.scale) == (1600, 900, (1, 1), (1, 1))
    is_disc, is_tissue = pixels[..., 0] == 120, pixels[..., 0] < 240
    for layer in (done.map.possible, done.map.likely, done.map.certain):
        np.testing.assert_array_equal((layer & frame.bit("glomerulus")) > 0, is_disc)
        np.testing.assert_array_equal((layer & frame.bit("cortex")) > 0, is_tissue)
    np.testing.assert_array_equal(done.map.core, is_disc * frame.bit("glomerulus"))
    assert done.tissue_um2 == pytest.approx(is_tissue.sum(), rel=0.05)
    assert done.failures == ()


@pytest.mark.parametrize("own", [0.25, 0.5, 0.47, 0.9])
def test_the_map_has_the_resolution_of_the_model_and_lies_on_the_slide(tmp_path, own) -> None:
    factor = 1 / own
    discs = [tuple(length * factor for length in disc) for disc in [(200, 180, 90), (460, 250, 60)]]
    size = (round(600 * factor), round(360 * factor))
    disc_slide(tmp_path / "s.tif", discs, size=size, border=round(30 * factor), mpp=own)
    done = segmented(tmp_path / "s.tif", ByColour(), tmp_path / "map", SMALL)
    frame = done.map.frame
    assert frame.mpp == pytest.approx((1, 1), rel=0.03)
    found = (done.map.likely & frame.bit("glomerulus")) > 0
    rows, columns = np.indices(found.shape) + 0.5
    for x, y, radius in discs:
        # Distance in level-0 pixels of each pixel's middle, by the map's own frame.
        distance = np.hypot(columns * frame.scale[0] - x, rows * frame.scale[1] - y)
        near = distance < radius * 1.3
        assert np.mean(found[near] == (distance < radius)[near]) > 0.99


def test_pixels_of_a_level_close_to_the_model_are_taken_as_they_are(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS, mpp=0.505)
    done = segmented(tmp_path / "s.tif", ByColour(), tmp_path / "map", SMALL)
    assert done.map.frame.scale == (2, 2)
    assert done.map.frame.mpp == pytest.approx((1.01, 1.01))


@pytest.mark.parametrize(
    "tiles", [TileSettings(128, 64), TileSettings(256, 96), TileSettings(1024, 128)]
)
def test_tiles_of_any_size_give_the_same_map(tmp_path, tiles) -> None:
    disc_slide(tmp_path / "s.tif", DISCS)
    one = segmented(tmp_path / "s.tif", BySurroundings(), tmp_path / "one", SMALL)
    other = segmented(tmp_path / "s.tif", BySurroundings(), tmp_path / "other", tiles)
    for layer in ("possible", "likely", "certain", "core"):
        assert np.mean(getattr(one.map, layer) != getattr(other.map, layer)) < 0.005


def test_the_origin_of_the_tiles_does_not_matter(tmp_path) -> None:
    pixels = disc_pixels(DISCS, border=120)
    write_pyramid(pixels, tmp_path / "s.tif", mpp=1.0, compression="deflate")
    write_pyramid(pixels[52:, 36:], tmp_path / "moved.tif", mpp=1.0, compression="deflate")
    one = segmented(tmp_path / "s.tif", BySurroundings(), tmp_path / "one", SMALL)
    other = segmented(tmp_path / "moved.tif", BySurroundings(), tmp_path / "other", SMALL)
    for layer in ("possible", "likely", "certain", "core"):
        assert np.mean(getattr(one.map, layer)[52:, 36:] != getattr(other.map, layer)) < 0.005


def test_only_tiles_with_tissue_pass_the_network(tmp_path) -> None:
    segmenter = ByColour()
    disc_slide(tmp_path / "s.tif", [(2600, 1500, 90)], size=(3000, 1800), border=60)
    pixels = disc_pixels([(2600, 1500, 90)], size=(3000, 1800))
    pixels[:, :2300] = pixels[0, 0]
    write_pyramid(pixels, tmp_path / "s.tif", mpp=1.0)
    done = segmented(tmp_path / "s.tif", segmenter, tmp_path / "map", SMALL)
    assert done.n_tiles == len(segmenter.shapes)
    assert done.n_tiles < 0.35 * (3000 / 128) * (1800 / 128)
    assert (done.map.likely[:, :2300] == 0).all()


def test_a_slide_of_glass_gives_an_empty_map_and_a_note(tmp_path) -> None:
    segmenter = ByColour()
    write_pyramid(np.full((500, 700, 3), 243, np.uint8), tmp_path / "s.tif", mpp=1.0)
    done = segmented(tmp_path / "s.tif", segmenter, tmp_path / "map")
    assert not done.map.possible.any()
    assert "tissue" in done.notes[0].en
    assert done.notes[0].zh != done.notes[0].en
    assert segmenter.shapes == []


def of_light() -> ByColour:
    """Cortex where pixels are as light as glass, glomerulus as it is."""
    segmenter = ByColour()
    segmenter.network.weight.data[0] *= -1
    segmenter.network.bias.data[0] *= -1
    return segmenter


def test_what_is_outlined_on_glass_is_told_and_not_in_the_map(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS, border=64)  # four pixels of the tissue's mask
    done = segmented(tmp_path / "s.tif", of_light(), tmp_path / "map", SMALL)
    (note,) = done.notes
    assert re.search(r"slide s, .*cortex \([5-9]\d %\)", note.en)
    assert "cortex" not in note.zh
    frame = done.map.frame
    is_disc = disc_pixels(DISCS, border=64)[..., 0] == 120
    for layer in (done.map.possible, done.map.likely, done.map.certain):
        inside = layer[:832]  # below, a row of the mask is half tissue, half glass
        np.testing.assert_array_equal(inside, is_disc[:832] * frame.bit("glomerulus"))


def test_glass_within_a_ring_of_tissue_is_outside_it_and_a_lumen_is_not(tmp_path) -> None:
    pixels = disc_pixels([], size=(2600, 2400), border=100)
    glass = pixels[0, 0].copy()
    pixels[400:2000, 400:2000] = glass  # 2.6 mm²
    pixels[1000:1200, 2200:2400] = glass  # a lumen
    write_pyramid(pixels, tmp_path / "s.tif", mpp=1.0, compression="deflate")
    done = segmented(tmp_path / "s.tif", of_light(), tmp_path / "map")
    assert "cortex" in done.notes[0].en
    found = done.map.likely & done.map.frame.bit("cortex") > 0
    assert found[1000:1200, 2200:2400].all()
    assert not found[432:1968, 432:1968].any()


def test_a_little_beyond_the_tissue_is_not_told(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS)
    done = segmented(tmp_path / "s.tif", BySurroundings(), tmp_path / "map", SMALL)
    assert done.notes == ()


@pytest.mark.parametrize("size", [(100, 70), (900, 700)])
def test_an_image_is_segmented_as_a_slide_of_it(tmp_path, size) -> None:
    pixels = disc_pixels(DISCS, border=0)[: size[1], : size[0]]
    Image.fromarray(pixels).save(tmp_path / "field.png")
    of_slide = segmented(
        tmp_path / "field.png", BySurroundings(), tmp_path / "map", mpp_override=1.0
    ).map
    of_image = segment_image(pixels, BySurroundings())
    assert of_image.frame == of_slide.frame
    for layer in ("possible", "likely", "certain", "core"):
        np.testing.assert_array_equal(getattr(of_image, layer), getattr(of_slide, layer))


@pytest.mark.parametrize("size", [(100, 70), (64, 500)])
def test_images_smaller_than_a_tile(tmp_path, size) -> None:
    pixels = np.full((size[1], size[0], 3), (120, 60, 140), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "field.png")
    segmenter = ByColour()
    done = segmented(tmp_path / "field.png", segmenter, tmp_path / "map", mpp_override=1.0)
    assert (done.map.likely == 3).all()
    assert all(side % 32 == 0 for shape in segmenter.shapes for side in shape[1:3])
    assert max(max(shape[1:3]) for shape in segmenter.shapes) <= 512


def test_a_network_of_fixed_size_gets_tiles_of_that_size(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS, size=(800, 600))
    segmenter = ByColour(has_fixed_size=True)
    segmented(tmp_path / "s.tif", segmenter, tmp_path / "map")
    assert set(segmenter.shapes) == {(1, 64, 64, 3)}


def test_a_slide_far_coarser_than_the_model_is_refused_and_a_bit_coarser_told(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS, mpp=1.0)
    with pytest.raises(SlideError, match=r"0\.4"):
        segmented(tmp_path / "s.tif", ByColour(mpp=0.4), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    told = segmented(tmp_path / "s.tif", ByColour(mpp=0.8), tmp_path / "map")
    assert any("enlarged" in note.en for note in told.notes)
    assert told.map.frame.mpp == (0.8, 0.8)


def test_unreadable_tiles_are_named_and_the_rest_done(tmp_path) -> None:
    path = tmp_path / "s.tif"
    pixels = np.random.default_rng(0).integers(90, 120, (900, 1600, 3)).astype(np.uint8)
    write_pyramid(pixels, path, mpp=1.0)
    whole = segmented(path, ByColour(), tmp_path / "whole", SMALL)
    damage_last_tile(path)
    done = segmented(path, ByColour(), tmp_path / "map", SMALL)
    assert 0 < len(done.failures) < done.n_tiles
    assert all(one.reason for one in done.failures)
    boxes = [one.box for one in done.failures]
    bad = np.zeros(whole.map.likely.shape, bool)
    for box in boxes:
        bad[box.y : box.y + box.height, box.x : box.x + box.width] = True
    np.testing.assert_array_equal(done.map.likely[~bad], whole.map.likely[~bad])
    assert str(len(boxes)) in " ".join(note.en for note in done.notes)


def damage_last_tile(path) -> None:
    """Overwrite the JPEG data of one of the tiles of level 0 with zeros."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, length = page.dataoffsets[17], page.databytecounts[17]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * length)


def test_a_network_that_gives_no_numbers_is_an_error_of_the_slide(tmp_path) -> None:
    disc_slide(tmp_path / "s.tif", DISCS)
    segmenter = ByColour()
    segmenter.network.bias.data[:] = float("nan")
    with pytest.raises(SlideError, match="no numbers"):
        segmented(tmp_path / "s.tif", segmenter, tmp_path / "map")
