import json
import unicodedata
from pathlib import Path

from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.errors import PredictionsError
from tests.support.cases import case, one_call, write_case

RUN = CliRunner()


def test_a_report_after_an_override_counts_it(tmp_path: Path) -> None:
    calls = [*case((7, "normal"), (2, "cgn")), one_call("x", "normal", either="normal+cgn")]
    write_case(tmp_path / "predictions", calls)
    where = str(tmp_path / "predictions")
    first = RUN.invoke(app, ["report", where, "--format", "html,csv", "--rules", "mest_c_like"])
    assert first.exit_code == 0, first.output
    assert "p1: 10 glomeruli, 1 to review" in first.output
    change = ["override", where, "x", "--labels", "cgn", "--by", "Dr Li", "--reason", "seen"]
    assert RUN.invoke(app, change).exit_code == 0
    out = str(tmp_path / "again")
    again = RUN.invoke(
        app,
        ["report", where, "--format", "csv", "--patient", "p1", "--language", "zh", "--out", out],
    )
    assert "10 glomeruli, 0 to review" in again.output
    results = (tmp_path / "again" / "p1.results.csv").read_text()
    assert "count,,cgn,,3,10" in results


def test_a_patient_is_found_in_any_unicode_form(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("x", patient="Müller"), one_call("y")])
    parted = unicodedata.normalize("NFD", "Müller")
    done = RUN.invoke(app, ["report", str(tmp_path), "--format", "csv", "--patient", parted])
    assert done.exit_code == 0, done.output
    assert "Müller: 1 glomerulus" in done.output


def test_an_unknown_format_is_wrong_usage(tmp_path: Path) -> None:
    write_case(tmp_path, case((1, "normal")))
    done = RUN.invoke(app, ["report", str(tmp_path), "--format", "html,hl7"])
    assert done.exit_code == 2


def test_a_folder_without_predictions_is_named(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["report", str(tmp_path)])
    assert isinstance(done.exception, PredictionsError)


def test_changes_of_a_page_are_counted_by_one_command(tmp_path: Path) -> None:
    where = str(write_case(tmp_path, [*case((3, "normal")), one_call("x", "normal")]))
    changes = tmp_path / "p1.changes.csv"
    changes.write_text(
        "time,by,image_id,labels,reason\n2020-01-01T00:00:00+00:00,Dr Li,x,cgn,seen\n"
    )
    done = RUN.invoke(app, ["override", where, "--from", str(changes)])
    assert done.exit_code == 0, done.output
    assert "1 change added, 0 there before" in done.output
    RUN.invoke(app, ["report", where, "--format", "csv"])
    assert "count,,cgn,,1,4" in (tmp_path / "reports" / "p1.results.csv").read_text()


def test_an_outdated_change_is_named_with_the_way_out(tmp_path: Path) -> None:
    where = str(write_case(tmp_path, [one_call("x", "normal")]))
    RUN.invoke(app, ["override", where, "x", "--labels", "fsg", "--by", "B", "--reason", "seen"])
    changes = tmp_path / "c.csv"
    changes.write_text("time,by,image_id,labels,reason\n2020-01-01T00:00:00+00:00,A,x,cgn,y\n")
    done = RUN.invoke(app, ["override", where, "--from", str(changes)])
    assert done.exit_code == 1
    assert "x: not added, since B changed it later" in done.output


def test_incomplete_or_conflicting_options_are_wrong_usage(tmp_path: Path) -> None:
    where = str(write_case(tmp_path, [one_call("x", "normal")]))
    for wrong in (["x"], ["x", "--labels", "cgn"], ["x", "--from", "f.csv"]):
        assert RUN.invoke(app, ["override", where, *wrong]).exit_code == 2


def test_corrections_of_missing_regions_are_named_and_the_report_is_written(
    tmp_path: Path,
) -> None:
    where = tmp_path / "predictions"
    write_case(where, [*case((3, "normal")), one_call("x", "normal")])
    change = ["override", str(where), "x", "--labels", "cgn", "--by", "Dr Li", "--reason", "seen"]
    assert RUN.invoke(app, change).exit_code == 0
    kept = (where / "overrides.csv").read_bytes()
    write_case(where, case((3, "normal")))  # predicted again, with other regions
    done = RUN.invoke(app, ["report", str(where), "--format", "html,csv"])
    assert done.exit_code == 0, done.output
    assert "not counted: x = cgn (Dr Li, " in done.output
    assert "these predictions hold no such image" in done.output
    page = (where / "reports" / "p1.html").read_text(encoding="utf-8")
    assert "1 correction no longer applies" in page
    assert "seen" in page  # the full entry, in the list of corrections
    assert "warning,,lost_changes" in (where / "reports" / "p1.results.csv").read_text()
    assert (where / "overrides.csv").read_bytes() == kept


def test_one_glomerulus_is_singular(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("x")])
    done = RUN.invoke(app, ["report", str(tmp_path)])
    assert "p1: 1 glomerulus, 0 to review" in done.output
    assert "1 file in " in done.output


def test_places_of_crops_without_slides_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("x")])
    done = RUN.invoke(app, ["report", str(tmp_path), "--format", "geojson"])
    assert done.exit_code == 1
    assert "no GeoJSON of p1: no slide to draw on (crops, or" in done.output
    both = RUN.invoke(app, ["report", str(tmp_path), "--format", "geojson,html"])
    assert both.exit_code == 0
    assert "no GeoJSON of p1" in both.output


def test_predictions_of_nothing_are_an_error(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("x")])
    facts = tmp_path / "case.json"
    stated = json.loads(facts.read_text(encoding="utf-8"))
    del stated["record"]  # as of an earlier version; with it, the lost row is named
    facts.write_text(json.dumps(stated | {"format": 1}), encoding="utf-8")
    table = tmp_path / "predictions.csv"
    table.write_text(table.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert isinstance(RUN.invoke(app, ["report", str(tmp_path)]).exception, PredictionsError)
    done = RUN.invoke(app, ["report", str(tmp_path), "--accept-edits"])
    assert isinstance(done.exception, PredictionsError)
    assert "there is nothing to report" in str(done.exception)


def test_a_change_of_one_section_states_the_label_of_the_glomerulus(tmp_path: Path) -> None:
    calls = [
        one_call("a", "normal", slide="s1", region="g1"),
        one_call("b", "cgn", slide="s2", region="g1"),
        one_call("c"),
    ]
    where = str(write_case(tmp_path, calls))
    person = ["--by", "Dr Li", "--reason", "seen"]
    done = RUN.invoke(app, ["override", where, "a", "--labels", "not_a_glomerulus", *person])
    assert "its glomerulus is also on s2 and counts as cgn" in done.output
    alone = RUN.invoke(app, ["override", where, "c", "--labels", "fsg", *person])
    assert "c counts as fsg from now on (Dr Li)" in alone.output
