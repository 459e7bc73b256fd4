"""Patient ids that probably mean one patient."""

import pandas as pd
import pytest

from glomerulab.cohort.leakage import confirm_distinct, find_leaks, look_alike_patients
from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest
from glomerulab.cohort.splits import assign_folds, split_by_image, split_by_patient
from glomerulab.cohort.validation import validate_manifest
from glomerulab.errors import LeakageError, ManifestError
from glomerulab.taxonomy import load_taxonomy


def _manifest(tmp_path, patients: list[str]) -> Manifest:
    rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(len(patients))]})
    rows["image_path"] = rows["image_id"] + ".png"
    rows["patient_id"] = patients
    return manifest_from_rows(rows, folder=tmp_path, taxonomy=load_taxonomy("paper"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("12", "12.0"),
        ("12", "012"),
        ("12", "\uff11\uff12"),
        ("P7", "p7"),
        ("P7", "P 7"),
        ("P-7", "P07"),
        ("M\u00fcller", "M\u00dcLLER"),
        ("stra\u00dfe", "STRASSE"),
        ("P1\u20132", "P1-2"),
        ("P7", "P7\u200b"),
    ],
)
def test_ids_that_differ_in_form_only_look_alike(tmp_path, first, second):
    manifest = _manifest(tmp_path, [first, second, "other", "P1"])
    assert look_alike_patients(manifest.table) == [tuple(sorted((first, second)))]
    with pytest.raises(LeakageError, match="--distinct"):
        split_by_patient(manifest)
    with pytest.raises(LeakageError):
        assign_folds(manifest, n_folds=2)
    (problem,) = [p for p in validate_manifest(manifest, check_pixels=False) if "look" in str(p)]
    assert problem.row == 1


@pytest.mark.parametrize(
    "patients",
    [["1-12", "11-2"], ["12", "120"], ["P1", "P10", "P11"], ["1.5", "15"], ["a", "\u00e4"]],
)
def test_other_ids_do_not_look_alike(tmp_path, patients):
    assert look_alike_patients(_manifest(tmp_path, patients).table) == []


def test_confirmed_patients_are_divided_and_the_table_records_it(tmp_path):
    manifest = _manifest(tmp_path, ["P7", "p7", "P8", "P9"])
    confirmed = confirm_distinct(manifest, ["P7", "p7"])
    assert confirmed.table["distinct_patient"].fillna("").tolist() == ["1", "1", "", ""]
    divided = split_by_patient(confirmed)
    assert find_leaks(divided) == []


def test_one_confirmed_id_does_not_settle_the_others(tmp_path):
    manifest = _manifest(tmp_path, ["12", "12.0", "012"])
    some = confirm_distinct(manifest, ["12", "12.0"])
    assert look_alike_patients(some.table) == [("012", "12", "12.0")]
    assert look_alike_patients(confirm_distinct(some, ["012"]).table) == []


def test_a_patient_who_is_not_there_cannot_be_confirmed(tmp_path):
    with pytest.raises(ManifestError, match="'P9'"):
        confirm_distinct(_manifest(tmp_path, ["P7", "p7"]), ["P7", "P9"])


def test_training_sees_look_alikes_of_a_split_made_elsewhere(tmp_path):
    manifest = _manifest(tmp_path, ["P7", "p7"])
    divided = manifest.with_table(manifest.table.assign(split=["train", "test"]))
    (leak,) = find_leaks(divided)
    assert "'P7'" in leak
    assert find_leaks(split_by_image(manifest, ratios=(1, 0, 1)))


def test_two_unicode_forms_of_a_patient_are_read_as_one(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(
        "image_id,image_path,patient_id\na,a.png,Jos\u00e9\nb,b.png,Jose\u0301\n", encoding="utf-8"
    )
    assert read_manifest(path).table["patient_id"].nunique() == 1
