import csv

import pandas as pd
import pytest

from glomerulab.cases.case_folder import FailureFacts, rewrite_facts, write_case_folder
from glomerulab.errors import PredictionsError
from glomerulab.reports.case.write import FORMATS, write_case_reports


def test_every_format_is_written_for_every_patient(folder, tmp_path) -> None:
    done = write_case_reports(folder.folder, tmp_path / "out", formats=FORMATS)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted([*(path.name for path in done.paths), "reports.json"])
    assert len(done.paths) == 2 * 6 + 3
    assert {"p1.html", "p1.pdf", "p1.images.csv", "p1.results.csv", "p1.dcm", "p1.fhir.json"} < set(
        names
    )
    assert {"s1.geojson", "s2.geojson", "s9.geojson"} < set(names)


def test_a_name_with_a_path_stays_in_the_folder(folder, tmp_path) -> None:
    done = write_case_reports(folder.folder, tmp_path / "out", formats=["csv"], patient="p/2")
    assert {path.parent for path in done.paths} == {tmp_path / "out"}


def test_an_unknown_patient_names_those_there_are(folder, tmp_path) -> None:
    with pytest.raises(PredictionsError, match="p1, p/2"):
        write_case_reports(folder.folder, tmp_path / "out", formats=["csv"], patient="p7")


def test_an_unknown_format_is_refused(folder, tmp_path) -> None:
    with pytest.raises(ValueError, match="hl7"):
        write_case_reports(folder.folder, tmp_path / "out", formats=["hl7"])


def test_one_format_may_be_given_by_its_name(folder, tmp_path) -> None:
    written = write_case_reports(folder.folder, tmp_path / "out", formats="fhir")
    assert {path.suffix for path in written.paths} == {".json"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"formats": "docx"}, "formats must .*got 'docx'"),
        ({"formats": []}, "formats must .*got none"),
        ({"formats": "csv", "language": "fr"}, "language must .*got 'fr'"),
    ],
)
def test_a_wrong_argument_is_named_before_a_file_is_written(
    folder, tmp_path, arguments, named
) -> None:
    with pytest.raises(ValueError, match=named):
        write_case_reports(folder.folder, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_patient_with_only_failures_has_a_report(doubtful, tmp_path) -> None:
    rewrite_facts(doubtful.folder, lambda _text: doubtful.facts.model_dump_json())
    done = write_case_reports(doubtful.folder, tmp_path / "out", formats=FORMATS, patient="p3")
    (case,) = done.cases
    assert (case.summary.n_glomeruli, case.failures) == (0, ("s7",))
    page = (tmp_path / "out" / "p3.html").read_text(encoding="utf-8")
    assert "0 glomeruli: none to count" in page
    assert "Not counted: s7." in page
    assert {path.suffix for path in done.paths} == {".html", ".pdf", ".csv", ".dcm", ".json"}


def test_predictions_without_one_call_have_every_report_and_are_inadequate(
    folder, tmp_path
) -> None:
    lost = (FailureFacts(case="p1", slide_id="s1", name="g1"),)
    facts = folder.facts.model_copy(update={"failures": lost})
    table = pd.read_csv(folder.folder / "predictions.csv")
    write_case_folder(folder.folder, facts, table.head(0))
    for language in ("en", "zh"):
        done = write_case_reports(
            folder.folder, tmp_path / language, formats=FORMATS, language=language
        )
        assert [case.patient for case in done.cases] == ["p1", "p/2"]
        assert len(done.paths) == 15
    with (tmp_path / "en" / "p1.results.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["item"]: row for row in csv.DictReader(file)}
    assert (rows["adequacy"]["grade"], rows["adequacy"]["n_of"]) == ("inadequate", "0")
    assert "No image could be evaluated." in rows["nothing_judged"]["note"]
    assert rows["C"]["not_assessed"] == "no glomerulus to count"
    english = (tmp_path / "en" / "p1.html").read_text(encoding="utf-8")
    assert "inadequate" in english
    assert "No image could be evaluated" in english
    chinese = (tmp_path / "zh" / "p1.html").read_text(encoding="utf-8")
    assert "0个肾小球：无可计数" in chinese
    assert "没有任何图像得到判定" in chinese
