import pandas as pd
import pytest

from glomerulab.evaluation.result import CONFORMAL_COVERAGES, evaluate_run
from glomerulab.evaluation.run_tables import read_run
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", RunRecipe(n_patients=20, n_images_per_patient=6))


def test_calibration_is_fitted_on_validation_only(folder):
    before = evaluate_run(read_run(folder))
    table = pd.read_csv(folder / "predictions.csv")
    in_test = table["split"] == "test"
    table.loc[in_test, [f"probability_{k}" for k in ("mspgn", "fsg", "cgn")]] = 0.0
    table.loc[in_test, "probability_normal"] = 1.0
    table.to_csv(folder / "predictions.csv", index=False)
    after = evaluate_run(read_run(folder))
    assert after.fitted.temperature == before.fitted.temperature
    assert [one.threshold for one in after.fitted.conformal] == [
        one.threshold for one in before.fitted.conformal
    ]
    assert after.scores["value"].tolist() != before.scores["value"].tolist()


def test_an_overconfident_model_is_cooled_and_better_calibrated(tmp_path):
    recipe = RunRecipe(n_patients=80, n_images_per_patient=10, overconfidence=4.0)
    evaluated = evaluate_run(read_run(write_run(tmp_path / "run", recipe)))
    assert evaluated.fitted.temperature > 1.5
    assert evaluated.fitted.calibration.brier < evaluated.calibration.brier
    assert evaluated.fitted.calibration.ece_equal_mass < evaluated.calibration.ece_equal_mass


def test_each_promised_coverage_has_its_result(folder):
    found = evaluate_run(read_run(folder)).fitted.conformal
    assert tuple(one.stated_coverage for one in found) == CONFORMAL_COVERAGES


def test_nothing_is_fitted_where_validation_is_evaluated_or_absent(folder):
    assert evaluate_run(read_run(folder), split="validation").fitted is None
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[table["split"] == "test"].to_csv(folder / "predictions.csv", index=False)
    assert evaluate_run(read_run(folder)).fitted is None


def test_columns_without_a_value_make_no_subgroups(folder):
    for name in ("predictions.csv", "manifest.csv"):
        pd.read_csv(folder / name).assign(stain=None).to_csv(folder / name, index=False)
    found = evaluate_run(read_run(folder)).subgroups
    assert set(found["column"]) == {"slide_id", "patient_id"}
