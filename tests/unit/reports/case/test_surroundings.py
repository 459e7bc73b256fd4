import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glomerulab.cases.case import Case, build_cases
from glomerulab.geometry import Box
from glomerulab.reports.case.html import PagePictures, render_case_html
from glomerulab.reports.case.surroundings import Surroundings
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.write import write_case_reports
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.slide import open_slide
from tests.conftest import smooth_noise


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """The slide s1 as it was predicted; s2 of another size; no s9."""
    (tmp_path / "slides").mkdir()
    for name, side in (("s1", 1000), ("s2", 900)):
        pixels = smooth_noise(side, side, seed=side)
        write_pyramid(pixels, tmp_path / "slides" / f"{name}.tiff", mpp=0.5, compression="deflate")
    return tmp_path / "slides"


def _contexts(page: str) -> list[dict]:
    return [json.loads(html.unescape(one)) for one in re.findall(r'data-context="([^"]*)"', page)]


def _on_s1(case: Case) -> int:
    return sum(call.slide_id == "s1" for call in case.calls)


def test_neighbours_are_read_from_the_slide_that_was_predicted(folder, slides: Path) -> None:
    case = build_cases(folder)[0]
    images = case_view(case, "en").images
    image = next(one for one in images if one.call.slide_id == "s1")
    found = Surroundings(slides).of(image, images, case.slides[0])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["src"].split(",")[1]))))
    box = image.call.box
    side = 6 * max(box.width, box.height)
    assert pixels.shape[:2] == (side, side)
    left, upper = (
        min(max(0, at + size // 2 - side // 2), 1000 - side)
        for at, size in ((box.x, box.width), (box.y, box.height))
    )
    with open_slide(slides / "s1.tiff") as slide:
        expected = slide.read_region(Box(left, upper, side, side))
    assert np.abs(pixels.astype(int) - expected).mean() < 8  # of JPEG
    (current,) = (one for one in found["marks"] if one["current"])
    first = tuple(float(one) for one in current["points"].split(" ")[0].split(","))
    assert first == (image.call.outline[0][0] - left, image.call.outline[0][1] - upper)
    assert found["mpp"] == 0.5


def test_a_page_holds_them_only_of_slides_at_hand(folder, slides: Path, tmp_path: Path) -> None:
    case = build_cases(folder)[0]
    assert _contexts(render_case_html(case, folder.folder)) == []
    around = PagePictures(surroundings=Surroundings(slides))
    page = render_case_html(case, folder.folder, pictures=around)
    found = _contexts(page)
    assert len(found) == _on_s1(case)
    assert {one["alt"] for one in found} == {"s1"}
    write_case_reports(folder.folder, tmp_path / "out", formats="html", slides=slides)
    written = "".join(one.read_text() for one in (tmp_path / "out").glob("*.html"))
    assert len(_contexts(written)) == len(found)
    assert 'src="http' not in written


def test_a_damaged_slide_leaves_the_map(folder, slides: Path) -> None:
    (slides / "s1.tiff").write_bytes(b"no slide")
    case = build_cases(folder)[0]
    around = PagePictures(surroundings=Surroundings(slides))
    assert _contexts(render_case_html(case, folder.folder, pictures=around)) == []
