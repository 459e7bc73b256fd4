from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cohort.leakage import find_leaks
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.taxonomy import Label, Taxonomy

TAXONOMY = Taxonomy("one", (Label(id="normal", name="Normal"),))


def _manifest(tmp_path: Path, **columns: list[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    rows = {"image_id": [f"i{k}" for k in range(n)], "image_path": [f"{k}.png" for k in range(n)]}
    return manifest_from_rows(pd.DataFrame(rows | columns), folder=tmp_path, taxonomy=TAXONOMY)


def test_a_patient_in_two_parts_is_named(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, patient_id=["a", "a", "b", "b"], split=["train", "train", "test", "train"]
    )
    assert find_leaks(manifest) == ["patients in several parts: 1, such as 'b' in test, train"]


@pytest.mark.parametrize("column", ["parent_id", "partner_id"])
def test_a_copy_apart_from_what_it_was_made_of_is_named(tmp_path: Path, column: str) -> None:
    manifest = _manifest(tmp_path, split=["train", "test", "train"], **{column: [None, "i0", "i0"]})
    (leak,) = find_leaks(manifest)
    assert ": 1, such as" in leak
    assert "'i1' in test with 'i0' in train" in leak


def test_whole_patients_unused_images_and_unknown_patients_are_no_leak(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        patient_id=["a", "a", "b", None, None],
        split=["train", None, "test", "test", "train"],
        parent_id=[None, "i0", None, None, "elsewhere"],
    )
    assert find_leaks(manifest) == []
