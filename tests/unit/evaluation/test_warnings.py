import numpy as np
import pandas as pd
import pytest

from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.run_tables import read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.evaluation.warnings import find_warnings
from tests.support.run_folders import RunRecipe, write_run


def _warnings(folder):
    run = read_run(folder)
    eval_set = eval_set_of_split(run.predictions, run.taxonomy, head=run.head)
    found = find_warnings(run, eval_set, score_table(eval_set))
    return {warning.title: warning for warning in found}


@pytest.fixture
def small(tmp_path):
    return write_run(tmp_path / "run", RunRecipe(n_patients=10, synthetic=False, skill=0.3))


def _change(folder, column, value, where=None):
    for name in ("manifest.csv", "predictions.csv"):
        table = pd.read_csv(folder / name, dtype={"parent_id": "string"})
        rows = slice(None) if where is None else where(table)
        table.loc[rows, column] = value
        table.to_csv(folder / name, index=False)


def test_a_small_run_without_a_defect_has_the_mild_warnings_only(small):
    assert set(_warnings(small)) == {
        "Few patients",
        "Not sealed",
        "Scores that never vary",
        "Small classes",
        "No external set",
    }


def test_a_large_run_still_lacks_an_external_set(tmp_path):
    recipe = RunRecipe(n_patients=130, n_images_per_patient=8, synthetic=False, skill=0.3)
    found = _warnings(write_run(tmp_path / "run", recipe))
    assert set(found) == {"No external set", "Not sealed"}


def test_severe_ones_come_first(tmp_path):
    run = read_run(write_run(tmp_path / "run", RunRecipe(n_patients=10, by_patient=False)))
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    severe = [warning.severe for warning in find_warnings(run, eval_set, score_table(eval_set))]
    assert severe == sorted(severe, reverse=True)


def test_a_split_by_image_is_found_from_the_patients(tmp_path):
    warning = _warnings(write_run(tmp_path / "run", RunRecipe(n_patients=10, by_patient=False)))
    assert "10 of 10 patients" in warning["Split by image, not by patient"].text


def test_unknown_patients_are_counted(small):
    _change(small, "patient_id", np.nan)
    assert "24 of 24 evaluated images" in _warnings(small)["Patients unknown"].text


def test_one_patient_is_named_as_such(small):
    _change(small, "patient_id", "same", where=lambda table: table["split"] == "test")
    assert "One patient" in _warnings(small)


def test_augmented_images_among_the_held_out_are_found(small):
    table = pd.read_csv(small / "manifest.csv", dtype={"parent_id": "string"})
    table.loc[table["split"] == "test", "parent_id"] = "image_0000"
    table.to_csv(small / "manifest.csv", index=False)
    assert "24 images" in _warnings(small)["Augmented held-out images"].text


def test_a_stain_target_from_the_test_split_is_found(small):
    table = pd.read_csv(small / "manifest.csv").assign(stain_target_leak="test")
    table.to_csv(small / "manifest.csv", index=False)
    warning = _warnings(small)["Stain target not from training"]
    assert "the test split" in warning.text
    assert warning.severe


def test_external_stain_targets_are_no_warning(small):
    table = pd.read_csv(small / "manifest.csv").assign(stain_target_leak="")
    table.to_csv(small / "manifest.csv", index=False)
    assert "Stain target not from training" not in _warnings(small)


def test_images_without_one_label_are_counted(small):
    _change(small, "label_fsg", 1)
    table = pd.read_csv(small / "manifest.csv").assign(fsg=1)
    table.to_csv(small / "manifest.csv", index=False)
    predictions = pd.read_csv(small / "predictions.csv")
    in_test = predictions["split"] == "test"
    n_two = int(
        (
            predictions.loc[in_test, ["label_normal", "label_mspgn", "label_cgn"]].sum(axis=1) > 0
        ).sum()
    )
    assert f"{n_two} held-out images" in _warnings(small)["Images left out"].text


def test_a_class_never_called_is_named(small):
    predictions = pd.read_csv(small / "predictions.csv")
    for label in ("mspgn", "fsg", "cgn"):
        predictions[f"probability_{label}"] = 0.0
    predictions.assign(probability_normal=1.0).to_csv(small / "predictions.csv", index=False)
    assert "Mesangial proliferation" in _warnings(small)["Class never called"].text


def test_scores_without_any_error_come_with_the_rule_of_three(small):
    predictions = pd.read_csv(small / "predictions.csv")
    for label in ("normal", "mspgn", "fsg", "cgn"):
        predictions[f"probability_{label}"] = predictions[f"label_{label}"].astype(float)
    predictions.to_csv(small / "predictions.csv", index=False)
    assert "100% of patients" in _warnings(small)["Scores without any error"].text
