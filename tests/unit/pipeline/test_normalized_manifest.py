from pathlib import Path

import pandas as pd

from glomerulab.cohort.leakage import TargetLeak
from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.pipeline.normalize_progress import Record
from glomerulab.pipeline.normalized_manifest import normalized_manifest
from glomerulab.taxonomy import load_taxonomy


def test_every_image_says_what_became_of_it(tmp_path: Path) -> None:
    rows = {
        "image_id": list("abcd"),
        "image_path": [f"{name}.jpg" for name in "abcd"],
        "stain": ["HE", "PAS", "HE", "TRI"],
    }
    cohort = manifest_from_rows(
        pd.DataFrame(rows), folder=tmp_path / "in", taxonomy=load_taxonomy("paper")
    )
    out = tmp_path / "out"
    files = {name: out / "images" / f"{name}.png" for name in "abc"}
    records = {
        "a": Record("a", "normalized", "", 1, 1),
        "b": Record("b", "blank", "no tissue", 1, 1),
        "c": Record("c", "unreadable", "no image", 1, 1),
        "gone": Record("gone", "normalized", "", 1, 1),  # of a run with more rows
    }
    leaks = {"HE": TargetLeak("HE", "he.png", "test", "z")}
    new = normalized_manifest(cohort, files, records, out=out, leaks=leaks)
    columns = ["image_path", "stain_status", "stain_reason", "stain_target", "stain_target_leak"]
    table = new.table[[*columns, "normalized_from"]].fillna("")
    assert table.to_numpy().tolist() == [
        ["images/a.png", "normalized", "", "targets/HE.json", "test", "../in/a.jpg"],
        ["images/b.png", "blank", "no tissue", "targets/PAS.json", "", "../in/b.jpg"],
        ["../in/c.jpg", "unreadable", "no image", "", "", ""],
        ["../in/d.jpg", "no_target", "", "", "", ""],
    ]
    assert new.folder == out
    assert "stain_status" not in cohort.table


def test_a_cohort_without_images_has_the_columns_too(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": [], "image_path": []}, dtype="string")
    cohort = manifest_from_rows(rows, folder=tmp_path, taxonomy=load_taxonomy("paper"))
    new = normalized_manifest(cohort, {}, {}, out=tmp_path / "out", leaks={})
    assert "stain_target_leak" in new.table
    assert len(new.table) == 0
