"""DICOM slides without identity: nothing but what is known to be harmless, and every pixel."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from glomerulab.errors import OutputError, SlideError
from glomerulab.geometry import Box
from glomerulab.slides.deidentify import deidentify
from glomerulab.slides.slide import open_slide
from tests.support.dicom_slides import IDENTITIES, write_dicom_slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_dicom_slide(tmp_path / "MUELLERIN")


def test_no_identity_is_left_in_any_place(slide: Path, tmp_path: Path) -> None:
    before = b"".join(path.read_bytes() for path in slide.parent.iterdir())
    assert all(text.encode() in before for text in IDENTITIES)
    done = deidentify(slide, tmp_path / "copy")
    assert sorted(path.name for path in done.path.iterdir()) == ["level-1.dcm", "level-2.dcm"]
    after = b"".join(path.read_bytes() for path in done.path.iterdir())
    assert [text for text in IDENTITIES if text.encode() in after] == []
    assert done.removed_images == ("label", "thumbnail")
    assert {"PatientName", "PatientID", "AccessionNumber"} <= set(done.removed_properties)


@pytest.mark.parametrize("given", ["a file", "the folder"])
def test_the_copy_is_the_same_slide(slide: Path, tmp_path: Path, given: str) -> None:
    source = slide if given == "a file" else slide.parent
    deidentify(source, tmp_path / "copy")
    with open_slide(source) as before, open_slide(tmp_path / "copy") as after:
        assert after.levels == before.levels
        assert len(after.levels) == 2
        assert after.stated_mpp_xy == before.stated_mpp_xy == (0.5, 0.5)
        box = Box(0, 0, 256, 256)
        for mpp in (0.5, 1.0):
            np.testing.assert_array_equal(
                after.read_region(box, mpp=mpp), before.read_region(box, mpp=mpp)
            )


def test_uids_are_new_and_the_same_wherever_one_stood(slide: Path, tmp_path: Path) -> None:
    deidentify(slide, tmp_path / "copy")
    old = pydicom.dcmread(slide)
    one, two = (pydicom.dcmread(path) for path in sorted((tmp_path / "copy").iterdir()))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PyramidUID"):
        assert one[name].value == two[name].value != old[name].value
        assert str(one[name].value).startswith("2.25.")
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert one.PatientIdentityRemoved == "YES"


def test_frames_are_copied_without_their_comments(slide: Path, tmp_path: Path) -> None:
    deidentify(slide, tmp_path / "copy")
    (before, after) = (
        list(pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=4))
        for path in (slide, tmp_path / "copy" / "level-1.dcm")
    )
    assert len(after) == 4
    for one, other in zip(before, after, strict=True):
        scan = one[one.index(b"\xff\xda") : one.index(b"\xff\xd9") + 2]
        assert scan in other
        assert b"COMMENTJPEG" in one
        assert b"COMMENTJPEG" not in other


def _change(path: Path, **values: object) -> None:
    data = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(path)


@pytest.mark.parametrize(
    "change",
    [
        {"SpecimenLabelInImage": "YES"},
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "PRIMARY", "LABEL", "NONE"]},
    ],
)
def test_pixels_that_show_the_label_are_refused(slide: Path, tmp_path: Path, change) -> None:
    for path in slide.parent.iterdir():
        _change(path, **change)
    with pytest.raises(SlideError):
        deidentify(slide, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"MUELLERIN"}


def test_an_identity_among_the_pixels_is_found(slide: Path, tmp_path: Path) -> None:
    data = pydicom.dcmread(slide)
    frames = list(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=4))
    table = frames[0].index(b"\xff\xdb")  # a table that no component uses
    extra = b"\xff\xdb\x00\x43\x03" + b"MUELLERIN ANNELIESE".ljust(64, b"\1")
    frames[0] = frames[0][:table] + extra + frames[0][table:]
    data.PixelData = pydicom.encaps.encapsulate(frames)
    data.save_as(slide)
    with pytest.raises(SlideError) as caught:
        deidentify(slide, tmp_path / "copy")
    assert "text" in caught.value.message
    assert not (tmp_path / "copy").exists()


def test_other_kinds_of_pixels_are_refused(slide: Path, tmp_path: Path) -> None:
    data = pydicom.dcmread(slide)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    data.save_as(slide)
    with pytest.raises(SlideError):
        deidentify(slide, tmp_path / "copy")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_damaged_file_is_refused(slide: Path, tmp_path: Path, share: float) -> None:
    content = slide.read_bytes()
    slide.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SlideError):
        deidentify(slide, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"MUELLERIN"}


def test_a_folder_is_replaced_only_if_it_holds_such_a_copy_alone(
    slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    deidentify(slide, out)
    with pytest.raises(OutputError):
        deidentify(slide, out)
    deidentify(slide, out, overwrite=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        deidentify(slide, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputError):
        deidentify(slide, slide.parent, overwrite=True)
    assert slide.is_file()


def _errors(path: Path) -> Counter[str]:
    done = subprocess.run(
        ["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert any("VLWholeSlideMicroscopyImage" in line for line in lines)
    return Counter(re.sub(r"\s+", " ", line) for line in lines if line.startswith("Error"))


@pytest.mark.real
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
def test_a_validator_finds_no_error_that_the_slide_had_not(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "slides" / "boxes_dicom"
    deidentify(source, tmp_path / "copy")
    before = sum((_errors(path) for path in source.glob("*.dcm")), Counter())
    for path in (tmp_path / "copy").iterdir():
        assert not _errors(path) - before
