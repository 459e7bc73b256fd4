import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import ImageFileError
from glomerulab.images import write_image
from glomerulab.reports.html import svg_uri, thumbnail_uri


def _decode(uri):
    return base64.b64decode(uri.partition("base64,")[2])


def test_a_thumbnail_keeps_the_shape_and_is_small(tmp_path):
    path = tmp_path / "大 图.png"
    write_image(np.full((300, 600, 3), 120, dtype=np.uint8), path)
    with Image.open(BytesIO(_decode(thumbnail_uri(path)))) as image:
        assert image.size == (192, 96)


def test_an_svg_comes_back_as_it_was(tmp_path):
    path = tmp_path / "a.svg"
    path.write_text("<svg/>", encoding="utf-8")
    uri = svg_uri(path)
    assert uri.startswith("data:image/svg+xml;base64,")
    assert _decode(uri) == b"<svg/>"


def test_a_broken_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match="empty"):
        thumbnail_uri(tmp_path / "a.png")
