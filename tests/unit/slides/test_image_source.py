import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.slides.image_source import ImageSource


def test_an_image_is_a_slide_of_one_level(tmp_path, rng):
    pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = ImageSource(tmp_path / "a.png")
    assert source.level_dimensions == ((50, 30),)
    assert source.level_downsamples == (1.0,)
    read = np.asarray(source.read(0, (-5, 10), (10, 10)))
    assert (read[:, :5, 3] == 0).all()
    np.testing.assert_array_equal(read[:, 5:, :3], pixels[10:20, :5])
    with pytest.raises(ValueError, match="only level 0"):
        source.read(1, (0, 0), (1, 1))
    source.close()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_opens(tmp_path, mode):
    name = "a.tif" if mode in {"CMYK", "I;16"} else "a.png"
    Image.new(mode, (20, 10)).save(tmp_path / name)
    assert ImageSource(tmp_path / name).level_dimensions == ((20, 10),)


def test_a_damaged_image_is_a_slide_error(tmp_path, rng):
    path = tmp_path / "cut.png"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SlideError, match="cannot be read") as caught:
        ImageSource(path)
    assert caught.value.where == str(path)
