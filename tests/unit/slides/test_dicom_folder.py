import pytest

from glomerulab.slides.dicom_folder import dicom_files, one_file_per_series


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
