import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cases.case_folder import CaseFolder, read_case_folder
from glomerulab.errors import PredictionsError
from glomerulab.reports.case.write import write_case_reports
from tests.support.cases import write_case

WRONG = {"p1.images.csv", "p1.results.csv", "p1.fhir.json"}


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def predict_again(folder: CaseFolder, patients: dict[str, str]) -> None:
    """Write the predictions as `predict` does after patients of slides were corrected."""
    calls = [
        replace(one, patient_id=patients.get(one.slide_id, one.patient_id)) for one in folder.calls
    ]
    slides = [
        one.model_copy(update={"patient_id": patients.get(one.slide_id, one.patient_id)})
        for one in folder.facts.slides
    ]
    write_case(folder.folder, calls, slides=slides)


def write(folder: CaseFolder, out: Path, *formats: str, **options):
    return write_case_reports(folder.folder, out, formats=formats or ("csv", "fhir"), **options)


def test_files_of_a_corrected_patient_id_are_removed(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    predict_again(folder, {"s1": "p7", "s2": "p7"})
    leftovers = write(folder, tmp_path / "out", "csv").leftovers
    assert {path.name for path in leftovers.removed} == WRONG
    assert not leftovers.kept
    assert names(tmp_path / "out") >= {"p7.images.csv"}
    assert not WRONG & names(tmp_path / "out")
    assert not any("p1" in path.read_text() for path in (tmp_path / "out").iterdir())


def test_an_older_format_of_a_patient_with_one_slide_less_is_removed(folder, tmp_path) -> None:
    write(folder, tmp_path / "out", "fhir", "csv", "geojson")
    predict_again(folder, {"s2": "p7"})
    done = write(folder, tmp_path / "out", "csv")
    assert {"p1.fhir.json", "s2.geojson"} <= {path.name for path in done.leftovers.removed}
    assert {"p1.images.csv", "p7.images.csv"} < names(tmp_path / "out")


def test_a_report_of_one_patient_removes_files_of_the_others_too(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    predict_again(folder, {"s1": "p7", "s2": "p7"})
    write(folder, tmp_path / "out", patient="p/2")
    assert not WRONG & names(tmp_path / "out")


def test_what_a_person_changed_or_put_there_stays_and_is_named(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    (tmp_path / "out" / "p1.results.csv").write_text("seen by Dr Li\n")
    (tmp_path / "out" / "p1.note.csv").write_text("mine\n")
    predict_again(folder, {"s1": "p7", "s2": "p7"})
    for _ in range(2):  # it is named each time, until it is gone
        leftovers = write(folder, tmp_path / "out").leftovers
        assert [path.name for path in leftovers.kept] == ["p1.results.csv"]
    assert (tmp_path / "out" / "p1.results.csv").read_text() == "seen by Dr Li\n"
    assert (tmp_path / "out" / "p1.note.csv").read_text() == "mine\n"


def test_reports_of_other_predictions_and_of_slides_that_left_stay(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    (other,) = [one for one in folder.calls if one.slide_id == "s9"]
    write_case(
        tmp_path / "other", [replace(other, patient_id="p7", slide_id="s1", image_path=None)]
    )
    write(read_case_folder(tmp_path / "other"), tmp_path / "out")
    write_case(folder.folder, [other], slides=[folder.facts.slides[-1]])
    assert not write(folder, tmp_path / "out").leftovers.removed
    assert names(tmp_path / "out") > WRONG


def test_an_accepted_edit_of_the_patient_moves_the_report(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    path = folder.folder / "predictions.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["patient_id"] = table["patient_id"].replace("p1", "p7")
    table.to_csv(path, index=False)
    done = write(folder, tmp_path / "out", accept_edits=True)
    assert {case.patient for case in done.cases} == {"p7", "p/2"}
    assert not WRONG & names(tmp_path / "out")


def test_an_interrupted_report_is_recorded(folder, tmp_path, monkeypatch) -> None:
    def interrupt(*_arguments) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("glomerulab.reports.case.csv_tables.write_results_csv", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(folder, tmp_path / "out", "fhir", "csv")
    predict_again(folder, {"s1": "p7", "s2": "p7"})
    leftovers = write(folder, tmp_path / "out", "fhir").leftovers
    assert [path.name for path in leftovers.removed] == ["p1.fhir.json"]
    assert [path.name for path in leftovers.kept] == ["p1.images.csv"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 3}', '{"files": {"a": 1}}', "\x00"])
def test_a_damaged_record_is_refused_and_nothing_is_written(folder, tmp_path, content) -> None:
    write(folder, tmp_path / "out")
    before = names(tmp_path / "out")
    (tmp_path / "out" / "reports.json").write_text(content)
    with pytest.raises(PredictionsError) as caught:
        write(folder, tmp_path / "out", "html")
    assert caught.value.where == str(tmp_path / "out" / "reports.json")
    assert names(tmp_path / "out") == before


def test_a_record_reaches_no_file_of_another_folder(folder, tmp_path) -> None:
    write(folder, tmp_path / "out")
    shutil.move(tmp_path / "out" / "p1.fhir.json", tmp_path / "precious.json")
    path = tmp_path / "out" / "reports.json"
    record = json.loads(path.read_text())
    record["files"]["../precious.json"] = record["files"]["p1.fhir.json"]
    path.write_text(json.dumps(record))
    predict_again(folder, {"s1": "p7", "s2": "p7"})
    write(folder, tmp_path / "out")
    assert (tmp_path / "precious.json").is_file()
