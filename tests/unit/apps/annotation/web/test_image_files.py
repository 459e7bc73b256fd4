import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from glomerulab.apps.annotation.web.image_files import image_digest, read_browser_image
from glomerulab.errors import ImageFileError


@pytest.mark.parametrize(("suffix", "kind"), [("png", "image/png"), ("jpg", "image/jpeg")])
def test_jpeg_and_png_are_sent_unchanged(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (20, 10), (9, 90, 190)).save(path)
    found = read_browser_image(path)
    assert (found.content, found.media_type) == (path.read_bytes(), kind)


def test_other_images_are_sent_as_png_with_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (12, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    found = read_browser_image(tmp_path / "a.tif")
    assert found.media_type == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found.content))), pixels)


def test_a_page_named_as_an_image_is_rejected(tmp_path):
    (tmp_path / "a.png").write_text("<html><script>alert(1)</script></html>")
    with pytest.raises(ImageFileError):
        read_browser_image(tmp_path / "a.png")
    with pytest.raises(ImageFileError):
        image_digest(tmp_path / "a.png")


def test_a_missing_image_is_named_without_its_folder(tmp_path):
    with pytest.raises(ImageFileError) as caught:
        image_digest(tmp_path / "gone.png")
    assert caught.value.where == "gone.png"


def test_the_digest_is_that_of_the_file_and_follows_it(tmp_path):
    path = tmp_path / "a.png"
    for colour in ((1, 2, 3), (200, 2, 3)):
        Image.new("RGB", (20, 10), colour).save(path)
        assert image_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
