import io
import re
from base64 import b64decode

import pytest
from PIL import Image

from glomerulab.errors import ImageFileError
from glomerulab.reports.case.write import write_case_reports
from glomerulab.reports.references import find_references, read_references
from tests.support.cases import case, write_case
from tests.support.result_pages import write_references

LABELS = ("normal", "cgn", "not_a_glomerulus")


def test_pictures_are_named_after_their_label_and_others_are_left_out(tmp_path):
    folder = write_references(tmp_path / "references", "cgn", "of_another_taxonomy")
    (folder / "normal.txt").write_text("no picture")
    assert find_references(folder, LABELS) == {"cgn": folder / "cgn.png"}
    assert find_references(tmp_path / "none", LABELS) == {}


def test_a_large_picture_is_made_smaller(tmp_path):
    folder = write_references(tmp_path / "references", "cgn")
    uri = read_references(folder, LABELS)["cgn"]
    with Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) as shown:
        assert shown.size == (480, 480)


@pytest.mark.parametrize("kind", ["missing", "a file", "empty", "other names", "damaged"])
def test_a_folder_without_pictures_is_refused_before_a_report_is_written(tmp_path, kind):
    home = write_case(tmp_path / "predictions", case((2, "normal")))
    folder = tmp_path / "references"
    if kind == "a file":
        folder.write_text("normal")
    elif kind != "missing":
        write_references(folder, *{"other names": ("crescent",)}.get(kind, ()))
    if kind == "damaged":
        (folder / "cgn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageFileError, match="references"):
        write_case_reports(home, tmp_path / "out", formats=["html", "csv"], references=folder)
    assert not (tmp_path / "out").exists()


def test_a_report_holds_the_pictures(tmp_path):
    home = write_case(tmp_path / "predictions", case((2, "normal")))
    folder = write_references(tmp_path / "references", "cgn", "not_a_glomerulus")
    plain = write_case_reports(home, tmp_path / "plain", formats="html").paths[0].read_text()
    shown = write_case_reports(home, tmp_path / "out", formats="html", references=folder)
    assert len(re.findall("data:image", shown.paths[0].read_text())) == 2 + plain.count(
        "data:image"
    )
