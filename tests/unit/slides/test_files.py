import os
import shutil

import pydicom
import pytest
from pydicom.uid import ComprehensiveSRStorage

from glomerulab.errors import SlideError
from glomerulab.slides.files import (
    _read_series,
    dicom_files,
    dicom_reference,
    dicom_slides,
    find_slides,
)
from glomerulab.slides.slide import open_slide
from tests.support.dicom_slides import write_dicom_slide


def test_a_folder_gives_its_slides_by_name_and_nothing_else(tmp_path):
    for name in ("b.svs", "a.TIFF", "notes.txt", ".hidden.svs", "regions.geojson"):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub").mkdir()
    assert [path.name for path in find_slides(tmp_path)] == ["a.TIFF", "b.svs"]


def test_a_file_is_one_slide(tmp_path):
    (tmp_path / "odd.name").write_text("x")
    assert find_slides(tmp_path / "odd.name") == [tmp_path / "odd.name"]


def test_a_slide_is_found_in_the_unicode_form_of_the_disk(tmp_path):
    (tmp_path / "e\u0301.tif").touch()
    assert find_slides(tmp_path / "\u00e9.tif")[0].exists()


def test_no_slide_is_an_error(tmp_path):
    with pytest.raises(SlideError, match="no slide"):
        find_slides(tmp_path)
    with pytest.raises(SlideError, match="no such slide"):
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


@pytest.mark.real
def test_two_files_of_one_series_are_one_slide(real_data):
    folder = real_data / "slides" / "boxes_dicom"
    files = dicom_files(folder)
    assert len(files) == 2
    assert dicom_slides(folder) == {folder: files}


def test_files_that_cannot_be_opened_are_kept(tmp_path):
    for name in ("a.dcm", "b.DCM", "c.txt", ".d.dcm"):
        (tmp_path / name).write_bytes(b"junk")
    files = dicom_files(tmp_path)
    assert [path.name for path in files] == ["a.dcm", "b.DCM"]
    assert list(dicom_slides(tmp_path)) == files


def test_a_folder_of_two_dicom_slides_is_not_opened_as_one_of_them(tmp_path):
    first = write_dicom_slide(tmp_path / "study", name="a", series="1.2.3")
    second = write_dicom_slide(tmp_path / "study", name="b", series="1.2.4")
    assert find_slides(tmp_path) == find_slides(tmp_path / "study") == [first, second]
    with pytest.raises(SlideError, match="2 DICOM slides"):
        open_slide(tmp_path / "study")
    with open_slide(second) as slide:
        assert slide.dimensions == (256, 256)


def test_a_folder_is_named_by_the_levels_of_its_slide(tmp_path):
    first = write_dicom_slide(tmp_path / "study")
    reference = dicom_reference(tmp_path / "study")
    assert reference == dicom_reference(first)
    assert len(reference.instances) == 2
    (tmp_path / "empty").mkdir()
    assert dicom_reference(tmp_path / "empty") is None


@pytest.mark.parametrize("kind", ["report", "label", "damaged"])
def test_what_lies_beside_a_dicom_slide_is_no_second_one(tmp_path, kind):
    folder = tmp_path / "study"
    first = write_dicom_slide(folder, name="b")
    other = pydicom.dcmread(first, stop_before_pixels=True)
    other.SeriesInstanceUID = "1.2.5"
    if kind == "report":
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    else:
        other.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    other.save_as(folder / "a.dcm")
    if kind == "damaged":
        (folder / "a.dcm").write_bytes(b"no DICOM")
    damaged = [folder / "a.dcm"] if kind == "damaged" else []
    assert find_slides(tmp_path) == [*damaged, first]  # by its file, as its id was
    with open_slide(folder) as slide:
        assert slide.dimensions == (256, 256)
    assert dicom_reference(folder) == dicom_reference(first)


def test_headers_are_read_once_unless_they_could_not_be_read(tmp_path, monkeypatch):
    first = write_dicom_slide(tmp_path / "study")
    content, times = first.read_bytes(), first.stat()
    first.write_bytes(b"x" * len(content))
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(dicom_slides(tmp_path / "study")) == 2
    first.write_bytes(content)  # as one that may be read again
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = dicom_slides(tmp_path / "study")
    assert len(found) == 1
    monkeypatch.setattr(pydicom, "dcmread", None)
    assert dicom_slides(tmp_path / "study") == found
    assert _read_series.cache_parameters()["maxsize"] is None  # else a large folder is read anew


@pytest.mark.real
def test_a_dicom_slide_is_named_by_its_levels_alone(real_data):
    files = dicom_files(real_data / "slides" / "boxes_dicom")
    found = [dicom_reference(path) for path in files]
    assert found[0] == found[1]  # whichever file represents the slide
    assert found[0].study_uid.endswith(".5.0")
    assert found[0].series_uid.endswith(".4.0")
    assert [instance.rpartition(".1689669825649.")[2] for _, instance in found[0].instances] == [
        "10.0"  # the other one is a thumbnail
    ]


def test_a_slide_that_is_not_dicom_has_no_reference(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"II*\0")
    assert dicom_reference(path) is None


@pytest.mark.parametrize("n_bytes", [0, 140, 300, 500])
def test_a_dicom_file_that_ends_early_is_listed_by_itself(tmp_path, n_bytes):
    write_dicom_slide(tmp_path, name="a", series="1.2.3")
    part = tmp_path / "z.dcm"
    part.write_bytes((tmp_path / "a_1.dcm").read_bytes()[:n_bytes])
    assert [part] in dicom_slides(tmp_path).values()
