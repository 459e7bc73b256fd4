import zipfile

import pytest

from glomerulab.apps.serve.files import RESULTS, find_result, pack_results, result_file
from glomerulab.errors import UnknownRecordError


@pytest.fixture
def folder(tmp_path):
    for name in (
        "predictions.csv",
        "case.json",
        "answers.jsonl",
        "cut/crops/s/a.png",
        "cut/extract.json",
        "maps/a.jpg",
        "reports/p.html",
        "normalized/images/a.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_the_archive_holds_only_the_files_a_report_needs(folder):
    pack_results(folder)
    with zipfile.ZipFile(folder / "result.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "RESEARCH-USE-ONLY.txt",
            "case.json",
            "cut/crops/s/a.png",
            "maps/a.jpg",
            "predictions.csv",
            "reports/p.html",
        ]


def test_a_file_is_found_by_its_name_and_a_missing_one_named(folder):
    assert result_file(folder, "report.html") == folder / "reports" / "p.html"
    assert find_result(folder, "failures.csv") is None
    with pytest.raises(UnknownRecordError, match=r"failures\.csv"):
        result_file(folder, "failures.csv")
    assert find_result(folder / "nowhere", "report.html") is None
    assert next(iter(RESULTS)) == "result.zip"
