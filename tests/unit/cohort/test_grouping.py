from pathlib import Path

import pandas as pd

from glomerulab.cohort.grouping import group_rows
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.taxonomy import load_taxonomy


def _manifest(**columns: list[str | None]) -> Manifest:
    frame = pd.DataFrame(columns, dtype="string")
    frame["image_path"] = frame["image_id"]
    return manifest_from_rows(frame, folder=Path("nowhere"), taxonomy=load_taxonomy("paper"))


def test_images_of_a_patient_are_one_group_numbered_by_the_smallest_id() -> None:
    manifest = _manifest(image_id=["d", "a", "c", "b"], patient_id=["x", "y", "x", "y"])
    assert group_rows(manifest, "patient").tolist() == [1, 0, 1, 0]
    assert group_rows(manifest, "image").tolist() == [3, 0, 2, 1]


def test_grandchildren_belong_to_the_same_group() -> None:
    manifest = _manifest(image_id=["a", "b", "c", "d"], parent_id=[None, "a", "b", None])
    assert group_rows(manifest, "image").tolist() == [0, 0, 0, 1]


def test_a_child_joins_two_patients_when_it_names_one_and_its_parent_another() -> None:
    manifest = _manifest(
        image_id=["a", "b", "c"], patient_id=["p", "q", "r"], parent_id=[None, "a", None]
    )
    assert group_rows(manifest, "patient").tolist() == [0, 0, 1]


def test_a_patient_called_like_an_image_is_not_that_image() -> None:
    manifest = _manifest(image_id=["a", "b"], patient_id=["b", "x"])
    assert group_rows(manifest, "patient").tolist() == [0, 1]
