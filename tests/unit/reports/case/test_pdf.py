import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import typst
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.cases.case import build_cases
from glomerulab.cases.corrections import add_correction
from glomerulab.errors import ConfigError
from glomerulab.reports.case import pdf as module
from glomerulab.reports.case.pdf import map_rows, write_case_pdf

needs_pdftotext = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="needs pdftotext (poppler-utils)"
)
HAS_CHINESE = bool(set(typst.Fonts().families()) & set(module.CHINESE))


def text_of(path) -> str:
    return subprocess.run(
        ["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True
    ).stdout


@needs_pdftotext
def test_every_page_states_research_use_only_and_shows_the_changes(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf")
    pages = text_of(tmp_path / "a.pdf").split("\f")[:-1]
    assert all("Research use only" in page and "SYNTHETIC DATA" in page for page in pages)
    text = " ".join(pages)
    assert "MEST-C-like" in text
    assert "Dr Li" in text
    assert "Read by" in text


@needs_pdftotext
@pytest.mark.skipif(not HAS_CHINESE, reason="needs a font with Chinese (fonts-noto-cjk)")
def test_chinese_pages_hold_chinese_text(folder, tmp_path) -> None:
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf", language="zh")
    assert "仅供研究使用" in text_of(tmp_path / "a.pdf")


def test_it_is_a4(folder, tmp_path) -> None:
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-")


def test_without_a_chinese_font_the_error_names_the_package_to_install(
    folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "CHINESE", ("No Such Font",))
    with pytest.raises(ConfigError, match="fonts-noto-cjk"):
        write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf", language="zh")
    assert not (tmp_path / "a.pdf").exists()


def test_a_missing_crop_does_not_stop_the_page(folder, tmp_path) -> None:
    (folder.folder / "crop0.png").unlink()
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size > 10_000


@needs_pdftotext
def test_a_missing_crop_is_explained_in_the_language_of_the_page(folder, tmp_path) -> None:
    (folder.folder / "crop0.png").unlink()
    for language, expected in (("en", "its file is no longer there"), ("zh", "文件已不存在")):
        if language == "zh" and not HAS_CHINESE:
            continue
        path = tmp_path / f"{language}.pdf"
        write_case_pdf(build_cases(folder)[0], folder.folder, path, language=language)
        text = text_of(path)
        # Chinese breaks between any two characters.
        assert expected.replace(" ", "") in "".join(text.split())
        assert "No such file" not in text


@needs_pdftotext
def test_pictures_of_one_glomerulus_name_their_other_slides(folder, tmp_path) -> None:
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf")
    raw = subprocess.run(
        ["pdftotext", str(tmp_path / "a.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    text = " ".join(raw.split())
    assert "Normal (3 images, 1 of glomeruli on several sections)" in text
    assert "Glomerulus 1, also on slide s1; counted as: Crescent" in text


@needs_pdftotext
def test_a_long_name_without_a_break_wraps_within_its_column(folder, tmp_path) -> None:
    name = "WWWWWWWWWWWWWWWWWWWWWWWWWW"  # 26 wide letters
    add_correction(folder, "b", labels=["cgn"], by=name, reason="seen")
    write_case_pdf(build_cases(folder)[0], folder.folder, tmp_path / "a.pdf")
    boxes = subprocess.run(
        ["pdftotext", "-bbox", str(tmp_path / "a.pdf"), "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r'xMin="([\d.]+)".* xMax="([\d.]+)".*>(.*)</word>', boxes)
    who, when = (next(float(x) for x, _, text in found if text == head) for head in ("Who", "When"))
    parts = [
        (text, float(right))
        for left, right, text in found
        if abs(float(left) - who) < 1 and text.startswith("W") and text != "Who"
    ]
    assert "".join(text for text, _ in parts) == name  # it can be copied as it is
    assert max(right for _, right in parts) <= when


@needs_pdftotext
def test_the_saliency_picture_is_below_each_crop(folder, tmp_path) -> None:
    case = build_cases(folder)[0]
    write_case_pdf(case, folder.folder, tmp_path / "a.pdf")
    before = text_of(tmp_path / "a.pdf")
    assert "Where the network looked" not in before
    looked = [replace(one, saliency_path=one.image_path) for one in folder.calls]
    looked[1] = replace(looked[1], saliency_path="gone.png")
    case = build_cases(replace(folder, calls=tuple(looked)))[0]
    write_case_pdf(case, folder.folder, tmp_path / "b.pdf")
    text = " ".join(text_of(tmp_path / "b.pdf").split())
    assert "It shows what influenced the call" in text
    # Above the gallery, and under each crop but the one whose picture is gone.
    assert text.count("looked") - before.count("looked") == 1 + len(case.calls) - 1


@given(st.lists(st.floats(0.1, 8.0), min_size=1, max_size=9))
def test_maps_stand_side_by_side_within_the_page_and_stay_readable(aspects) -> None:
    rows = map_rows([{"slide_id": n, "aspect": one} for n, one in enumerate(aspects)])
    assert [one["slide_id"] for row in rows for one in row["maps"]] == list(range(len(aspects)))
    for row in rows:
        gaps = module.GUTTER_MM * (len(row["maps"]) - 1)
        assert sum(one["width_mm"] for one in row["maps"]) + gaps <= module.WIDTH_MM + 1e-6
        assert row["height_mm"] <= module.MAP_MM
        if len(row["maps"]) > 1:
            alone = [map_rows([one])[0]["height_mm"] for one in row["maps"]]
            assert row["height_mm"] >= min(module.LEAST_MAP_MM, *alone) - 1e-6


@pytest.mark.parametrize(("aspect", "n_rows"), [(0.3, 1), (1.0, 2), (2.7, 3)])
def test_three_maps_of_one_shape_fill_a_page_and_no_more(aspect, n_rows) -> None:
    rows = map_rows([{"aspect": aspect}] * 3)
    assert len(rows) == n_rows
    assert sum(row["height_mm"] for row in rows) < 240  # of 255 mm
