from dataclasses import replace

import pandas as pd
import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import EXTERNAL, read_run, with_external_set
from glomerulab.evaluation.warnings import find_external_warnings
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path / "run", RunRecipe(n_patients=10, n_images_per_patient=6)))


@pytest.fixture
def other(tmp_path):
    """Another hospital whose image ids are the same by chance, and its patients are not."""
    recipe = RunRecipe(n_patients=6, n_images_per_patient=5, seed=11)
    found = read_run(write_run(tmp_path / "other", recipe))
    table = found.manifest.table
    renamed = table.assign(patient_id="o" + table["patient_id"])
    predictions = found.predictions.assign(patient_id="o" + found.predictions["patient_id"])
    return replace(found, manifest=found.manifest.with_table(renamed), predictions=predictions)


def test_external_images_are_evaluated_with_the_calibration_of_validation(run, other):
    both = with_external_set(run, other.predictions, other.manifest)
    outside = evaluate_run(both, split=EXTERNAL, has_external_set=True)
    inside = evaluate_run(run)
    assert outside.eval_set.n_images == len(other.predictions)
    assert outside.fitted.temperature == inside.fitted.temperature
    assert outside.fitted.n_images == inside.fitted.n_images
    titles = {warning.title for warning in outside.warnings}
    assert not titles & {"No external set", "Split by image, not by patient"}


def test_pictures_of_the_external_set_are_its_own_though_ids_repeat(run, other):
    both = with_external_set(run, other.predictions, other.manifest)
    image_id = str(other.predictions["image_id"].iloc[0])
    assert image_id in run.image_paths
    assert both.image_paths[image_id] == other.image_paths[image_id]


def test_a_truly_external_set_has_no_warning(run, other):
    assert find_external_warnings(run, other.manifest) == []


def test_shared_patients_another_scale_and_another_treatment_are_found(run, other):
    table = other.manifest.table.assign(mpp=0.25)
    table.loc[0, "patient_id"] = run.manifest.table["patient_id"].iloc[0]
    table["stain_status"] = pd.array(["normalized"] * len(table), dtype="string")
    found = {
        one.title: one for one in find_external_warnings(run, other.manifest.with_table(table))
    }
    assert set(found) == {
        "External set shares patients",
        "Stains treated differently",
        "Different resolution",
    }
    assert found["External set shares patients"].severe
    assert "1 patient id " in found["External set shares patients"].text
    assert "0.25 µm per pixel, the run's own 0.50" in found["Different resolution"].text


def _titles(run, other, **columns):
    table = other.manifest.table.assign(**columns)
    found = find_external_warnings(run, other.manifest.with_table(table))
    return {one.title: one for one in found}


@pytest.mark.parametrize(
    "spelling", [str.upper, lambda name: f" {name}", lambda n: n.replace("_", "-")]
)
def test_patients_in_another_spelling_are_shared(run, other, spelling):
    ids = run.manifest.table["patient_id"].iloc[: len(other.manifest.table)].map(spelling)
    found = _titles(run, other, patient_id=pd.array(list(ids), dtype="string"))
    assert found["External set shares patients"].severe
    assert "another spelling" in found["External set shares patients"].text


def test_shared_slides_are_found_without_patients(run, other):
    own = list(run.manifest.table["slide_id"].iloc[: len(other.manifest.table)])
    none = pd.array([None] * len(own), dtype="string")
    found = _titles(run, other, patient_id=none, slide_id=pd.array(own, dtype="string"))
    assert {"External set shares slides", "Patients of the sets not compared"} <= set(found)


def test_a_stain_that_training_lacks_is_named_with_its_count(run, other):
    stains = pd.array(["PASM"] * 2 + ["HE"] * (len(other.manifest.table) - 2), dtype="string")
    warning = _titles(run, other, stain=stains)["External set has other stains"]
    assert warning.severe
    assert "2 PASM" in warning.text
