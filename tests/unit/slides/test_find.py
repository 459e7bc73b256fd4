import shutil

import pytest

from glomerulab.errors import SlideError
from glomerulab.slides.find import find_slides


def test_a_folder_gives_its_slides_by_name_and_nothing_else(tmp_path):
    for name in ("b.svs", "a.TIFF", "notes.txt", ".hidden.svs", "regions.geojson"):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub").mkdir()
    assert [path.name for path in find_slides(tmp_path)] == ["a.TIFF", "b.svs"]


def test_one_slide_stands_for_itself(tmp_path):
    (tmp_path / "odd.name").write_text("x")
    assert find_slides(tmp_path / "odd.name") == [tmp_path / "odd.name"]


def test_no_slide_is_an_error(tmp_path):
    with pytest.raises(SlideError, match="no slide in this folder"):
        find_slides(tmp_path)
    with pytest.raises(SlideError, match="no such file or folder"):
        find_slides(tmp_path / "none")


@pytest.mark.real
def test_a_dicom_series_is_one_slide(real_data, tmp_path):
    shutil.copytree(real_data / "slides" / "boxes_dicom", tmp_path / "case")
    assert find_slides(tmp_path) == [tmp_path / "case"]
    assert len(find_slides(tmp_path / "case")) == 1


def test_a_mirax_slide_is_its_index_file_and_not_its_folder_of_data(tmp_path):
    (tmp_path / "case.mrxs").write_text("x")
    (tmp_path / "case").mkdir()
    for name in ("Slidedat.ini", "Data0000.dat"):
        (tmp_path / "case" / name).write_text("x")
    assert find_slides(tmp_path) == [tmp_path / "case.mrxs"]


@pytest.mark.real
def test_dicom_of_two_cases_is_found_beside_other_slides(real_data, tmp_path):
    for case in ("b", "c"):
        shutil.copytree(real_data / "slides" / "boxes_dicom", tmp_path / case)
    shutil.copy(real_data / "slides" / "openslide_small.svs", tmp_path / "a.svs")
    assert [path.name for path in find_slides(tmp_path)] == ["a.svs", "b", "c"]
