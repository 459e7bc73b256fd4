from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError
from glomerulab.images import read_image, write_image
from glomerulab.pipeline.augment import augment_manifest, training_size
from glomerulab.taxonomy import load_taxonomy

LABELS = ("normal", "mspgn", "fsg", "cgn")
N_IMAGES = 12


@pytest.fixture
def manifest(tmp_path: Path, rng: np.random.Generator) -> Manifest:
    """Six training images (four normal, two cgn), three of validation, three of test."""
    rows = []
    for number in range(N_IMAGES):
        name = f"肾 {number}.png"
        write_image(rng.integers(60, 250, (20, 30, 3), dtype=np.uint8), tmp_path / name)
        label = "cgn" if number in {4, 5, 8} else "normal"
        split = "train" if number < 6 else "validation" if number < 9 else "test"
        flags = {name: int(name == label) for name in LABELS}
        rows.append(
            {"image_id": f"i{number}", "image_path": name, "patient_id": f"p{number // 2}"}
            | {"split": split, "stain": "PAS"}
            | flags
        )
    frame = pd.DataFrame(rows)
    return manifest_from_rows(frame, folder=tmp_path, taxonomy=load_taxonomy("paper"))


@pytest.mark.parametrize("to", [6, 7, 23, 50])
def test_the_training_part_reaches_exactly_the_number(
    manifest: Manifest, tmp_path: Path, to: int
) -> None:
    table = augment_manifest(manifest, tmp_path / "out", to=to).manifest.table
    assert (table["split"] == "train").sum() == to
    assert table["image_id"].is_unique


def test_a_total_counts_the_images_of_all_parts(manifest: Manifest, tmp_path: Path) -> None:
    n_parts = len(manifest.table)
    to = training_size(manifest, 30)
    table = augment_manifest(manifest, tmp_path / "out", to=to).manifest.table
    assert len(table) == 30
    assert training_size(manifest, n_parts) == (manifest.table["split"] == "train").sum()
    with pytest.raises(ManifestError, match=str(n_parts)):
        training_size(manifest, n_parts - 1)


def test_only_training_images_become_parents_or_partners(
    manifest: Manifest, tmp_path: Path
) -> None:
    result = augment_manifest(manifest, tmp_path / "out", to=40).manifest
    table = result.table
    copies = table[table["parent_id"].notna()]
    by_id = manifest.table.set_index("image_id")
    for column in ("parent_id", "partner_id"):
        sources = by_id.loc[copies[column].dropna()]
        assert set(sources["split"]) == {"train"}
    partners = copies.dropna(subset="partner_id")
    assert len(partners) > 0
    for label in LABELS:
        assert (by_id.loc[partners["partner_id"], label].to_numpy() == partners[label]).all()
        assert (by_id.loc[copies["parent_id"], label].to_numpy() == copies[label]).all()
    parents = by_id.loc[copies["parent_id"]]
    assert (parents["patient_id"].to_numpy() == copies["patient_id"]).all()
    before = manifest.table
    assert table.iloc[:N_IMAGES][before.columns].equals(before)
    assert all(path.is_file() for path in result.image_paths())


def test_every_operation_is_used_and_copies_have_their_parents_shape(
    manifest: Manifest, tmp_path: Path
) -> None:
    result = augment_manifest(manifest, tmp_path / "out", to=18).manifest
    assert set(result.table["augmentation"].dropna()) == {"rotation", "noise", "mixup"}
    assert {read_image(path).shape for path in result.image_paths()} == {(20, 30, 3)}


def test_balancing_makes_label_sets_equal(manifest: Manifest, tmp_path: Path) -> None:
    table = augment_manifest(manifest, tmp_path / "out", to=21, balanced=True).manifest.table
    training = table[table["split"] == "train"]
    assert abs(int(training["cgn"].sum()) - int(training["normal"].sum())) <= 1


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    manifest: Manifest, tmp_path: Path
) -> None:
    one = augment_manifest(manifest, tmp_path / "one", to=15, seed=4).manifest
    two = augment_manifest(manifest, tmp_path / "two", to=15, seed=4, n_workers=2).manifest
    for first, second in zip(one.image_paths(), two.image_paths(), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_a_second_run_keeps_existing_files(manifest: Manifest, tmp_path: Path) -> None:
    first = augment_manifest(manifest, tmp_path / "out", to=9).manifest
    times = [path.stat().st_mtime_ns for path in first.image_paths()]
    first.image_paths()[-1].unlink()
    again = augment_manifest(manifest, tmp_path / "out", to=9).manifest
    assert [path.stat().st_mtime_ns for path in again.image_paths()[:-1]] == times[:-1]
    assert again.image_paths()[-1].is_file()


def test_a_corrupt_parent_becomes_a_named_failure(manifest: Manifest, tmp_path: Path) -> None:
    manifest.image_paths()[0].write_bytes(b"")
    result = augment_manifest(manifest, tmp_path / "out", to=18)
    assert result.failures
    assert all("肾 0.png" in reason for reason in result.failures.values())
    made = (result.manifest.table["split"] == "train").sum()
    assert made + len(result.failures) == 18


def test_too_few_and_no_training_part_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="6 images"):
        augment_manifest(manifest, tmp_path / "out", to=5)
    unsplit = manifest.with_table(manifest.table.assign(split=pd.NA))
    with pytest.raises(ManifestError, match="run `glomerulab split` first"):
        augment_manifest(unsplit, tmp_path / "out", to=50)


def test_copies_are_not_copied_again(manifest: Manifest, tmp_path: Path) -> None:
    first = augment_manifest(manifest, tmp_path / "out", to=10).manifest
    second = augment_manifest(first, tmp_path / "more", to=20, seed=1).manifest
    parents = set(second.table["parent_id"].dropna())
    assert parents <= set(manifest.table["image_id"])
    assert second.table["image_id"].is_unique
