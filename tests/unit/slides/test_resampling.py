import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glomerulab.geometry import Box
from glomerulab.slides import resampling
from glomerulab.slides.resampling import best_level, read_box

WHITE = (240, 241, 242)


class Pyramid:
    """An exact pyramid in memory: level n is level 0 averaged over blocks of 2**n."""

    associated_images = ()

    def __init__(self, level_0: np.ndarray, n_levels: int) -> None:
        image = Image.fromarray(level_0).convert("RGBA")
        self.levels = [image.reduce(2**level) for level in range(n_levels)]
        self.properties: dict[str, str] = {}

    @property
    def level_dimensions(self):
        return tuple(level.size for level in self.levels)

    @property
    def level_downsamples(self):
        return tuple(float(2**level) for level in range(len(self.levels)))

    def read(self, level, corner, size):
        assert corner[0] % 2**level == corner[1] % 2**level == 0
        x, y = corner[0] >> level, corner[1] >> level
        return self.levels[level].crop((x, y, x + size[0], y + size[1]))

    def close(self):
        pass


def texture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def lanczos_matrix(n_in, start, stop, n_out):
    """Weights of a Lanczos-3 resize of [start, stop) to n_out pixels, by its definition."""
    scale = (stop - start) / n_out
    stretch = max(scale, 1.0)
    centres = start + (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in)[None, :] + 0.5 - centres[:, None]) / stretch
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def test_the_best_level_is_the_coarsest_that_is_fine_enough():
    downsamples = (1.0, 4.0, 16.0)
    levels = {0.5: 0, 1.0: 0, 3.9: 0, 4.0: 1, 15.0: 1, 16.0: 2, 99.0: 2}
    assert {wanted: best_level(downsamples, wanted) for wanted in levels} == levels


@given(
    x=st.integers(-60, 260),
    y=st.integers(-60, 200),
    width=st.integers(1, 120),
    height=st.integers(1, 120),
)
@settings(max_examples=60)
def test_native_sampling_returns_the_pixels_of_the_file(x, y, width, height):
    pixels = texture(200, 260)
    padded = np.full((200 + 400, 260 + 400, 3), WHITE, dtype=np.uint8)
    padded[200:400, 200:460] = pixels
    read = read_box(
        Pyramid(pixels, 3),
        Box(x, y, width, height),
        downsample=(1.0, 1.0),
        background=lambda: WHITE,
    )
    np.testing.assert_array_equal(
        read, padded[200 + y : 200 + y + height, 200 + x : 200 + x + width]
    )


def test_a_level_of_the_wanted_sampling_is_unaltered():
    pyramid = Pyramid(texture(256, 256), 3)
    read = read_box(pyramid, Box(64, 32, 100, 60), downsample=(4.0, 4.0), background=lambda: WHITE)
    level = np.asarray(pyramid.levels[2].convert("RGB"))
    np.testing.assert_array_equal(read, level[8 : 8 + 15, 16 : 16 + 25])


@pytest.mark.parametrize(("downsample", "level"), [(1.7, 0), (2.6, 1), (0.6, 0), (7.3, 2)])
def test_resizing_is_lanczos_from_the_best_level_with_real_pixels_around_the_box(downsample, level):
    pyramid = Pyramid(texture(512, 640, seed=3), 3)
    box = Box(100, 60, 301, 203)
    read = read_box(pyramid, box, downsample=(downsample, downsample), background=lambda: WHITE)
    source = np.asarray(pyramid.levels[level].convert("RGB")).astype(float)
    factor = 2**level
    height, width = round(203 / downsample), round(301 / downsample)
    down = lanczos_matrix(source.shape[0], 60 / factor, 263 / factor, height)
    across = lanczos_matrix(source.shape[1], 100 / factor, 401 / factor, width)
    rows = np.tensordot(down, source, axes=(1, 0))  # (h, W, 3)
    expected = np.tensordot(rows, across, axes=(1, 1)).transpose(0, 2, 1)
    assert read.shape == (height, width, 3)
    assert np.abs(read - np.clip(expected, 0, 255)).max() <= 1.5  # Pillow rounds between passes


def test_no_background_is_mixed_in_at_the_edge_of_the_slide():
    black = np.zeros((200, 200, 3), dtype=np.uint8)
    read = read_box(
        Pyramid(black, 1), Box(0, 0, 200, 200), downsample=(2.5, 2.5), background=lambda: WHITE
    )
    assert read.max() == 0


def test_outside_the_slide_a_box_has_the_background():
    black = np.zeros((200, 200, 3), dtype=np.uint8)
    read = read_box(
        Pyramid(black, 1), Box(100, 0, 200, 100), downsample=(2.0, 2.0), background=lambda: WHITE
    )
    assert read[:, :46].max() < 20
    assert (read[:, 56:] == WHITE).all()


def test_transparent_pixels_get_the_background():
    pyramid = Pyramid(np.zeros((64, 64, 3), dtype=np.uint8), 1)
    pyramid.levels[0].putalpha(0)
    read = read_box(pyramid, Box(0, 0, 8, 8), downsample=(1.0, 1.0), background=lambda: WHITE)
    assert (read == WHITE).all()


def test_the_background_is_not_computed_without_need():
    calls = []

    def white():
        calls.append(1)
        return WHITE

    read_box(
        Pyramid(texture(64, 64), 1), Box(8, 8, 16, 16), downsample=(1.0, 1.0), background=white
    )
    assert calls == []


def test_a_read_in_tiles_equals_one_read(monkeypatch):
    pyramid = Pyramid(texture(700, 900, seed=5), 1)
    box, downsample = Box(13, 17, 840, 640), (9.0, 9.0)
    monkeypatch.setattr(resampling, "REDUCING_GAP", 2.0)
    monkeypatch.setattr(resampling, "MAX_READ_PX", 600_000)  # full blocks, a single tile
    single = read_box(pyramid, box, downsample=downsample, background=lambda: WHITE)
    monkeypatch.setattr(resampling, "MAX_READ_PX", 10_000)
    tiled = read_box(pyramid, box, downsample=downsample, background=lambda: WHITE)
    direct = np.asarray(
        pyramid.levels[0]
        .convert("RGB")
        .resize((93, 71), Image.Resampling.LANCZOS, box=(13, 17, 853, 657))
    )
    assert np.abs(tiled.astype(int) - single).max() <= 2
    assert np.abs(tiled.astype(int) - direct).mean() < 1.5


def test_an_output_above_the_limit_is_refused():
    with pytest.raises(ValueError, match="pixels at this sampling"):
        read_box(
            Pyramid(texture(64, 64), 1),
            Box(0, 0, 20_000, 20_000),
            downsample=(1.0, 1.0),
            background=lambda: WHITE,
        )


@pytest.mark.parametrize("downsample", [(3.0, 3.0), (2.3, 3.7), (3.5, 4.5), (0.7, 0.7)])
def test_a_large_read_just_above_a_level_is_made_in_tiles_too(monkeypatch, downsample):
    source, reads = Pyramid(texture(700, 900), n_levels=1), []
    own_read = source.read

    def read(level, corner, size):
        reads.append(size[0] * size[1])
        return own_read(level, corner, size)

    monkeypatch.setattr(source, "read", read)
    box = Box(-20, 30, 901, 607)
    single = read_box(source, box, downsample=downsample, background=lambda: WHITE)
    monkeypatch.setattr(resampling, "MAX_READ_PX", 40_000)
    reads.clear()
    tiled = read_box(source, box, downsample=downsample, background=lambda: WHITE)
    assert len(reads) > 4
    assert max(reads) < 80_000  # the tails of the filter come on top
    assert np.abs(tiled.astype(int) - single).max() <= 2
