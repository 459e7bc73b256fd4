import pytest

from glomerulab.slides.dicom import dicom_files, dicom_reference, one_file_per_series


@pytest.mark.real
def test_two_files_of_one_series_are_one_slide(real_data):
    files = dicom_files(real_data / "slides" / "boxes_dicom")
    assert len(files) == 2
    assert one_file_per_series(files) == files[:1]


def test_files_that_cannot_be_opened_are_kept_for_whoever_opens_them(tmp_path):
    for name in ("a.dcm", "b.DCM", "c.txt", ".d.dcm"):
        (tmp_path / name).write_bytes(b"junk")
    files = dicom_files(tmp_path)
    assert [path.name for path in files] == ["a.dcm", "b.DCM"]
    assert one_file_per_series(files) == files


@pytest.mark.real
def test_a_dicom_slide_is_named_by_its_levels_alone(real_data):
    files = dicom_files(real_data / "slides" / "boxes_dicom")
    found = [dicom_reference(path) for path in files]
    assert found[0] == found[1]  # whichever file stands for the slide
    assert found[0].study_uid.endswith(".5.0")
    assert found[0].series_uid.endswith(".4.0")
    assert [instance.rpartition(".1689669825649.")[2] for _, instance in found[0].instances] == [
        "10.0"  # the other one is a thumbnail
    ]


def test_what_is_not_dicom_has_no_reference(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"II*\0")
    assert dicom_reference(path) is None
