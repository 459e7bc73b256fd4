import dataclasses

import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.certainty_tables import certainty_tables
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def judgement(tmp_path_factory):
    return evaluate_run(read_run(write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe())))


def test_calibration_is_shown_before_and_after(judgement):
    calibration, _ = certainty_tables(judgement)
    brier = calibration.rows[0]
    assert brier[1] == f"{judgement.calibration.brier:.3f}"
    assert brier[2] == f"{judgement.fitted.calibration.brier:.3f}"
    assert f"temperature {judgement.fitted.temperature:.2f}" in calibration.note


def test_sets_show_what_was_promised_and_found(judgement):
    _, sets = certainty_tables(judgement)
    promised = [row[0].replace("\N{NO-BREAK SPACE}", " ") for row in sets.rows]
    assert promised == ["80.0 %", "90.0 %", "95.0 %"]
    validation = judgement.run.predictions.query("split == 'validation'")
    n_patients = validation["patient_id"].nunique()
    assert f"images of {n_patients} patients" in sets.note


def test_without_validation_only_what_was_trained_is_shown(judgement):
    (calibration,) = certainty_tables(dataclasses.replace(judgement, fitted=None))
    assert calibration.columns == ("Measure", "As trained")
    assert "no validation part" in calibration.note


def test_judging_validation_does_not_say_that_there_is_none(judgement):
    (calibration,) = certainty_tables(evaluate_run(judgement.run, split="validation"))
    assert "this is the validation part itself" in calibration.note
