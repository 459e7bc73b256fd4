import numpy as np
import pytest

from glomerulab.stain.kernels import pixels as kernels
from glomerulab.stain.optical_density import optical_density_table, pixel_tables
from tests.support.beer_lambert import HE, PAS, section, unit_rows


def masks_of(out: np.ndarray) -> np.ndarray:
    return out.reshape(-1)[: out.size // 12 * 12].view(np.uint32)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.ascontiguousarray(section(7, size=96).image.reshape(-1, 3))


def test_histograms_count_every_channel_and_brightness(pixels: np.ndarray) -> None:
    counts = np.zeros((4, 256), np.int64)
    kernels.channel_histograms(pixels, 0, 255, counts)
    for channel in range(3):
        assert np.array_equal(counts[channel], np.bincount(pixels[:, channel], minlength=256))
    levels = pixels.astype(int)
    brightness = (levels[:, 0] + 2 * levels[:, 1] + levels[:, 2]) // 4
    assert np.array_equal(counts[3], np.bincount(brightness, minlength=256))
    kernels.channel_histograms(pixels, 200, 230, counts)
    assert counts[0].sum() == np.count_nonzero((brightness >= 200) & (brightness <= 230))


@pytest.mark.parametrize("sparsity", [0.0, 0.1])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_amounts_are_the_same_in_both_precisions(sparsity: float, precision: type) -> None:
    rng = np.random.default_rng(0)
    red, green, blue = rng.exponential(0.4, (3, 5000)).astype(precision)
    amounts = np.empty((2, 5000), precision)
    stains = unit_rows(HE).astype(precision)
    kernels.sparse_code(red, green, blue, stains, precision(sparsity), amounts[0], amounts[1])
    exact = np.empty((2, 5000))
    planes = [plane.astype(np.float64) for plane in (red, green, blue)]
    kernels.sparse_code(*planes, unit_rows(HE), sparsity, exact[0], exact[1])
    assert amounts.min() >= 0.0
    assert np.allclose(amounts, exact, atol=2e-5)


@pytest.mark.parametrize("n", [1, 2, 1023, 5001])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_those_of_numpy_within_a_bin(n: int, share: float) -> None:
    planes = np.random.default_rng(1).exponential(0.4, (3, n)).astype(np.float32)
    found = np.empty(2)
    kernels.concentration_percentiles(*planes, unit_rows(HE), 0.0, share, found)
    amounts = np.empty((2, n), np.float32)
    stains = unit_rows(HE).astype(np.float32)
    kernels.sparse_code(*planes, stains, np.float32(0.0), amounts[0], amounts[1])
    bin_width = kernels.HIGHEST_AMOUNT / kernels.N_BINS
    for k in range(2):
        low = np.quantile(amounts[k], share, method="lower") - bin_width
        high = np.quantile(amounts[k], share, method="higher") + bin_width
        assert low <= found[k] <= high


def test_the_brightest_peak_is_a_peak_and_no_slope() -> None:
    levels = np.arange(256)
    slope = np.where(levels < 220, 3000 - 10 * levels, 0).clip(0).astype(np.int64)
    peak = slope + np.rint(2000 * np.exp(-(((levels - 240) / 2.0) ** 2))).astype(np.int64)
    assert kernels.brightest_peak(slope, 180, 100.0, 0.07, 1.5) in {-1, 217, 218, 219}
    assert kernels.brightest_peak(peak, 180, 100.0, 0.07, 1.5) == 240
    rising = (3000 - 10 * levels).clip(0).astype(np.int64)
    assert kernels.brightest_peak(rising, 180, 100.0, 0.07, 1.5) == -1


def test_new_colours_are_those_of_double_precision(pixels: np.ndarray) -> None:
    white, new_white = np.array([241.0, 238.0, 242.0]), np.array([250.0, 245.0, 240.0])
    gains = np.array([1.3, 0.8])
    table = optical_density_table(white)
    out = np.empty_like(pixels)
    kernels.recolour(
        pixels,
        table.astype(np.float32),
        unit_rows(HE),
        0.0,
        gains,
        unit_rows(PAS),
        new_white,
        out,
        masks_of(out),
    )
    planes = [table[channel][pixels[:, channel]] for channel in range(3)]
    amounts = np.empty((2, len(pixels)))
    kernels.sparse_code(*planes, unit_rows(HE), 0.0, amounts[0], amounts[1])
    light = new_white * np.exp(-(amounts.T * gains) @ unit_rows(PAS))
    off = np.abs(out.astype(float) - np.rint(light))
    assert off.max() <= 1.0  # a tie may fall to either side
    assert np.count_nonzero(off) / off.size < 1e-3
    assert np.abs(out - light).max() < 0.51


def test_any_number_of_pixels_is_processed_completely() -> None:
    white = np.full(3, 240.0)
    table = optical_density_table(white).astype(np.float32)
    for n in (1, 2, 3, 4, 7, 1023, 1024, 1025, 2051):
        pixels = np.full((n, 3), (180, 90, 160), np.uint8)
        out = np.zeros_like(pixels)
        kernels.recolour(
            pixels,
            table,
            unit_rows(HE),
            0.0,
            np.ones(2),
            unit_rows(HE),
            white,
            out,
            masks_of(out),
        )
        assert (out == out[0]).all()
        assert np.abs(out[0].astype(int) - (177, 90, 160)).max() <= 8
        assert out.min() > 0


def test_tissue_is_gathered_where_it_is_marked(pixels: np.ndarray) -> None:
    table = optical_density_table(240.0).astype(np.float32)
    luminance = np.broadcast_to(np.arange(256, dtype=np.float32) / 765, (2, 3, 256)).copy()
    light = (luminance, np.array([0.1, 0.8], np.float32), table)
    mask = np.empty(len(pixels), np.bool_)
    kernels.mark_tissue(pixels, light, mask)
    density = np.empty((3, len(pixels)), np.float32)
    n = kernels.gather_tissue(pixels, light, density)
    assert 0 < n == np.count_nonzero(mask) < len(pixels)
    kept = pixels[mask]
    assert np.array_equal(density[:, :n], np.stack([table[c][kept[:, c]] for c in range(3)]))


@pytest.mark.parametrize("border", [0.0, 0.3])
def test_tissue_is_decoded_where_it_is_marked(border: float) -> None:
    pixels = np.ascontiguousarray(section(7, size=30, border=border).image.reshape(-1, 3))
    light = pixel_tables(240.0)
    mask = np.empty(len(pixels), np.bool_)
    kernels.mark_tissue(pixels, light, mask)
    density, brightness = np.empty((3, len(pixels)), np.float32), np.empty(len(pixels), np.float32)
    n = kernels.decode_tissue(pixels, light, brightness, density)
    assert 0 < n == np.count_nonzero(mask) < len(pixels)
    expected = np.stack([light[2][c][pixels[:, c]] for c in range(3)]) * mask
    assert np.array_equal(density, expected)
