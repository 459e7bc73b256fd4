import base64
import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import Note, read_case_folder, write_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.images import read_image, write_image
from glomerulab.reports.case.html import ReviewFacts, page_policy, render_case_html
from glomerulab.reports.case.pictures import NATIVE_PX, crop_picture, slide_map
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.write import write_case_reports
from tests.support.cases import one_call, write_case


def test_the_page_loads_nothing(folder) -> None:
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert "default-src 'none'" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)


def test_only_the_scripts_of_the_page_itself_may_run(folder) -> None:
    page = render_case_html(build_cases(folder)[0], folder.folder)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [kind for kind, _ in scripts] == [' type="application/json" id="facts"', "", "", ""]
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in scripts[1:]
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert f'script-src {allowed}"' in page


def test_a_crop_is_in_the_page_with_all_its_pixels(folder) -> None:
    uri = crop_picture(folder.calls[0], folder.folder).uri
    assert uri in render_case_html(build_cases(folder)[0], folder.folder)
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    crop = read_image(folder.folder / "crop0.png")
    assert shown.size == crop.shape[1::-1]
    assert np.abs(np.asarray(shown, dtype=np.int16) - crop).mean() < 8  # of noise


def test_a_huge_crop_is_made_smaller_and_its_outline_still_fits(folder) -> None:
    wide = np.full((30, 5000, 3), 200, dtype=np.uint8)
    write_image(wide, folder.folder / "crop0.png")
    picture = crop_picture(folder.calls[0], folder.folder)
    assert picture.width == 5000  # of the outline's coordinates
    assert Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))).width == NATIVE_PX


def test_commands_in_warnings_are_code_and_no_backticks(folder) -> None:
    note = Note(en="Run `glomerulab gates <RUN>` again.", zh="-")
    facts = folder.facts.model_copy(update={"notes": (note,)})
    page = render_case_html(build_cases(replace(folder, facts=facts))[0], folder.folder)
    assert "Run <code>glomerulab gates &lt;RUN&gt;</code> again." in page


def test_names_from_files_are_escaped(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="<b>", reason="<script>alert(1)</script>")
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert "<i>" not in page.replace("<i><b style", "")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\\u003cscript\\u003ealert" in page  # among the facts of the script


def test_research_use_and_synthetic_are_on_top(folder) -> None:
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert page.index("Research use only") < page.index("<main>")
    assert page.index("SYNTHETIC DATA") < page.index("<main>")


def test_a_confirmed_call_is_not_struck(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert "<s>" not in page
    assert "Dr Li" in page


def test_the_models_call_is_struck_and_the_change_is_listed(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert "<s>Mesangial proliferation</s>" in page
    assert page.partition("<script")[0].count("Dr Li") == 2


def test_each_image_shows_the_command_that_changes_it(folder) -> None:
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert page.count("<pre>glomerulab override predictions ") == 6


def test_the_saliency_picture_opens_beside_the_crop(folder) -> None:
    with_maps = [
        replace(call, saliency_path=call.image_path if place else "gone.png")
        for place, call in enumerate(folder.calls)
    ]
    shown = replace(folder, calls=tuple(with_maps))
    page = render_case_html(build_cases(shown)[0], folder.folder)
    assert page.count("<summary>Where the network looked</summary>") == 5  # one file is gone
    assert "proves no lesion" in page
    assert "Where the network looked" not in render_case_html(build_cases(folder)[0], folder.folder)


def _key(case, folder) -> str:
    page = render_case_html(case, folder.folder)
    facts = re.search(r'id="facts">(.*?)</script>', page, re.DOTALL)
    assert facts is not None
    return json.loads(facts[1])["key"]


def test_changes_in_the_browser_are_kept_after_a_new_prediction_of_the_same_images(folder) -> None:
    """`predict` writes a new time whenever it continues: what waits must not be lost to it."""
    case, other = build_cases(folder)
    later = replace(case, facts=case.facts.model_copy(update={"created": "2099-01-01T00:00:00"}))
    assert _key(later, folder) == _key(case, folder)
    assert _key(replace(case, calls=case.calls[1:]), folder) != _key(case, folder)
    assert _key(other, folder) != _key(case, folder)


def test_the_command_on_a_chinese_page_writes_a_chinese_page(folder) -> None:
    case = build_cases(folder)[0]
    again = "glomerulab report predictions --language zh</code>"
    assert again in render_case_html(case, folder.folder, language="zh")
    assert "--language" not in render_case_html(case, folder.folder, language="en")


def test_a_missing_picture_is_explained_in_the_language_of_the_page(folder) -> None:
    (folder.folder / "crop0.png").unlink()
    case = build_cases(folder)[0]
    assert "no picture: its file is no longer there" in render_case_html(case, folder.folder)
    chinese = render_case_html(case, folder.folder, language="zh")
    assert "无图像：文件已不存在" in chinese
    assert "No such file" not in chinese


def test_only_a_page_with_a_server_may_call_it(folder) -> None:
    case = build_cases(folder)[0]
    facts = ReviewFacts("now", n_cases=2)
    page = render_case_html(case, folder.folder, review=facts)
    assert page_policy(facts) in page
    assert page_policy(facts).endswith("connect-src 'self'")
    assert len(re.findall(r"<script>", page)) == 4
    assert '"review": {"n_cases": 2, "state": "now"}' in page
    alone = render_case_html(case, folder.folder)
    assert "connect-src" not in alone
    assert '"review": null' in alone
    assert "report.pdf" not in alone


def test_each_image_carries_the_data_of_a_correction(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    page = render_case_html(build_cases(folder)[0], folder.folder)
    box = folder.calls[2].box
    place = f"{box.x} {box.y} {box.width} {box.height}"
    assert f'data-image="b" data-labels="cgn" data-place="{place}" data-seen="1"' in page


def test_pictures_of_one_glomerulus_name_their_other_slides(folder) -> None:
    page = render_case_html(build_cases(folder)[0], folder.folder)
    assert "Normal (3 images, 1 of glomeruli on several sections)" in page
    assert "Glomerulus 1, also on slide s1; counted as: Crescent" in page
    assert page.count("; counted as: ") == 2


def test_the_outline_is_in_the_pixels_of_the_crop(folder) -> None:
    call = folder.calls[0]
    found = crop_picture(call, folder.folder)
    assert (found.width, found.height) == (96, 96)
    scale = 96 / call.box.width
    assert found.points.split()[0] == f"{10 * scale:.1f},{10 * scale:.1f}"


def test_a_missing_crop_is_replaced_by_the_reason(folder) -> None:
    (folder.folder / "crop0.png").unlink()
    found = crop_picture(folder.calls[0], folder.folder)
    assert found.uri is None
    assert found.problem == "its file is no longer there"
    (folder.folder / "crop0.png").write_bytes(b"no picture")
    assert crop_picture(folder.calls[0], folder.folder).problem == "its file cannot be read"


def test_a_map_marks_the_glomeruli_of_its_slide(folder) -> None:
    case = build_cases(folder)[0]
    drawn = slide_map(case.slides[0], case_view(case, "en").images, folder.folder)
    assert [mark.number for mark in drawn.marks] == [1, 3, 4, 6]
    assert [mark.is_referred for mark in drawn.marks] == [False, True, True, False]


def test_a_slide_without_its_map_is_left_out(folder) -> None:
    case = build_cases(folder)[0]
    (folder.folder / "s1.jpg").write_bytes(b"no picture")
    assert slide_map(case.slides[0], (), folder.folder) is None
    (folder.folder / "s1.jpg").unlink()
    assert slide_map(case.slides[0], (), folder.folder) is None


@pytest.mark.parametrize(
    ("test", "is_shown"), [("failed", False), ("passed", True), ("untested", True), (None, True)]
)
def test_a_map_that_failed_its_tests_is_shown_only_when_asked(tmp_path, test, is_shown) -> None:
    write_image(np.full((40, 40, 3), 120, np.uint8), tmp_path / "map.png")
    call = replace(one_call("a"), saliency_path="map.png")
    facts = read_case_folder(write_case(tmp_path / "first", [call])).facts
    row = pd.read_csv(tmp_path / "first" / "predictions.csv")
    home = tmp_path / "case"
    home.mkdir()
    (tmp_path / "map.png").rename(home / "map.png")
    write_case_folder(home, facts.model_copy(update={"map_test": test}), row)
    for maps in (False, True):
        (page,) = write_case_reports(home, home / "out", formats="html", maps=maps).paths
        assert ('class="looked"' in page.read_text("utf-8")) == (is_shown or maps)
