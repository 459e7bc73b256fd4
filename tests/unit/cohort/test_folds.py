from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cohort.folds import check_folds, fold_split
from glomerulab.cohort.leakage import find_leaks
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.splits import assign_folds
from glomerulab.errors import ManifestError, TrainingError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


def manifest_of(rows: list[dict[str, object]]) -> Manifest:
    frame = pd.DataFrame(rows).assign(image_path=lambda table: table["image_id"] + ".png")
    return manifest_from_rows(frame, folder=Path("nowhere"), taxonomy=PAPER)


def cohort(*, n_patients: int = 10, per_patient: int = 4) -> list[dict[str, object]]:
    return [
        {"image_id": f"p{patient}-{number}", "patient_id": f"p{patient}"}
        | {"site": f"site{patient % 3}", "synthetic": 1}
        | {label: int(place == number % 4) for place, label in enumerate(PAPER.label_ids)}
        for patient in range(n_patients)
        for number in range(per_patient)
    ]


@settings(max_examples=30)
@given(st.integers(2, 5), st.sampled_from([0.0, 0.2, 0.4]), st.integers(0, 3))
def test_every_image_is_held_out_once_and_no_patient_is_divided(
    n_folds: int, share: float, seed: int
) -> None:
    whole = assign_folds(manifest_of(cohort()), n_folds=n_folds, seed=seed)
    splits = [fold_split(whole, fold, validation_share=share, seed=seed) for fold in range(n_folds)]
    assert [leak for split in splits for leak in find_leaks(split)] == []
    held_out = np.concatenate([split.part("test").table["image_id"] for split in splits])
    assert sorted(held_out) == sorted(whole.table["image_id"])
    for split in splits:
        assert (len(split.part("validation").table) > 0) == (share > 0)
        assert len(split.table) == len(whole.table)


def test_augmented_copies_are_only_in_training_and_show_no_held_out_image() -> None:
    rows = cohort()
    parents = [f"p{patient}-0" for patient in range(10)]
    copies = [
        {**rows[0], "image_id": f"copy-{parent}", "patient_id": parent.split("-")[0]}
        | {"parent_id": parent, "partner_id": parents[(place + 1) % 10]}
        for place, parent in enumerate(parents)
    ]
    whole = assign_folds(manifest_of(rows + copies), n_folds=5)
    for fold in range(5):
        split = fold_split(whole, fold, validation_share=0.2)
        table = split.table
        part_of = dict(zip(table["image_id"], table["split"], strict=True))
        left = table[table["parent_id"].notna()]
        assert set(left["split"]) <= {"train"}
        origins = {part_of[one] for name in ("parent_id", "partner_id") for one in left[name]}
        assert origins <= {"train"}
        assert find_leaks(split) == []


def test_sites_stay_together_with_their_patients() -> None:
    rows = cohort()
    rows[1]["site"] = "site1"  # patient p0 was seen at two sites: they cannot be divided
    whole = assign_folds(manifest_of(rows), n_folds=2, by="site")
    assert (whole.table.groupby("site")["fold"].nunique() == 1).all()
    assert (whole.table.groupby("patient_id")["fold"].nunique() == 1).all()
    with pytest.raises(ManifestError, match="3 parts"):
        assign_folds(manifest_of(rows), n_folds=3, by="site")


def test_a_column_that_is_missing_or_empty_is_named() -> None:
    with pytest.raises(ManifestError, match="no column hospital"):
        assign_folds(manifest_of(cohort()), n_folds=2, by="hospital")
    rows = cohort()
    rows[5]["site"] = None
    rows[5]["patient_id"] = "alone"
    with pytest.raises(ManifestError, match="site is empty"):
        assign_folds(manifest_of(rows), n_folds=2, by="site")


def test_a_label_of_one_fold_only_is_refused_and_an_absent_one_is_told() -> None:
    crescent = PAPER.label_ids[3]
    rows = [{**row, crescent: 0} for row in cohort()]
    rows[0][crescent] = 1
    whole = assign_folds(manifest_of(rows), n_folds=5)
    with pytest.raises(TrainingError, match=crescent):
        check_folds(whole)
    rows[30][crescent] = 1  # of another patient
    whole = assign_folds(manifest_of(rows), n_folds=5, seed=1)
    assert any(crescent in note for note in check_folds(whole))


def test_a_single_fold_is_refused() -> None:
    whole = manifest_of([{**row, "fold": 0} for row in cohort()])
    with pytest.raises(ManifestError, match="1 fold"):
        check_folds(whole)
