from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.near_duplicates import (
    MAX_DISTANCE,
    N_BITS,
    check_near_duplicates,
    find_near_duplicates,
    hash_distances,
    orientation_hashes,
    read_allowed_pairs,
)
from glomerulab.errors import LeakageError, ManifestError
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.taxonomy import load_taxonomy


def _picture(seed: int, size: int = 96) -> RgbImage:
    """Smooth random blobs, different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def _manifest(folder: Path, pictures: dict[str, tuple[RgbImage, str | None]]) -> Manifest:
    for name, (picture, _) in pictures.items():
        write_image(picture, folder / f"{name}.png")
    rows = pd.DataFrame(
        {
            "image_id": list(pictures),
            "image_path": [f"{name}.png" for name in pictures],
            "split": [part for _, part in pictures.values()],
        }
    )
    return manifest_from_rows(rows, folder=folder, taxonomy=load_taxonomy("paper"))


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_a_turned_or_mirrored_copy_is_the_same_picture(turn: Image.Transpose) -> None:
    picture = _picture(1)
    copy = np.array(Image.fromarray(picture).transpose(turn))
    distances = hash_distances(orientation_hashes(copy)[:1], orientation_hashes(picture)[None])
    assert distances[0, 0] <= 8


def test_distances_are_those_counted_bit_by_bit(rng: np.random.Generator) -> None:
    hashes = rng.integers(0, 2, (5, N_BITS)).astype(bool)
    others = rng.integers(0, 2, (4, 8, N_BITS)).astype(bool)
    counted = (hashes[:, None, None] != others[None]).sum(axis=3).min(axis=2)
    assert np.array_equal(hash_distances(hashes, others), counted)


def test_copies_in_two_parts_are_found_and_in_one_part_are_not(tmp_path: Path) -> None:
    one, two = _picture(1), _picture(2)
    smaller = np.array(Image.fromarray(one[:, ::-1]).resize((70, 70)))
    manifest = _manifest(
        tmp_path,
        {
            "a": (one, "train"),
            "b": (two, "train"),
            "c": (two, "train"),
            "d": (smaller, "test"),
            "e": (_picture(3), "validation"),
            "f": (one, None),
        },
    )
    found = find_near_duplicates(manifest)
    assert [(p.image_id, p.part, p.other_image_id, p.other_part) for p in found] == [
        ("d", "test", "a", "train")
    ]
    assert found[0].distance <= MAX_DISTANCE


def test_near_duplicates_are_refused_unless_allowed_by_name(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, {"a": (_picture(1), "train"), "b": (_picture(1), "test")})
    with pytest.raises(LeakageError, match=r"1 pair.*'b' \(test\) and 'a' \(train\), 0 of 256"):
        check_near_duplicates(manifest)
    check_near_duplicates(manifest, allowed={frozenset(("a", "b"))})
    with pytest.raises(LeakageError):
        check_near_duplicates(manifest, allowed={frozenset(("a", "c"))})


def test_folds_are_compared_likewise(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, {"a": (_picture(1), None), "b": (_picture(1), None)})
    folds = manifest.with_table(manifest.table.assign(fold=pd.array([0, 1], dtype="Int64")))
    assert len(find_near_duplicates(folds, column="fold")) == 1


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    pictures = {f"i{n}": (_picture(n % 3), ("train", "test")[n % 2]) for n in range(6)}
    manifest = _manifest(tmp_path, pictures)
    assert find_near_duplicates(manifest, n_workers=2) == find_near_duplicates(manifest)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, {"a": (_picture(1), None), "b": (_picture(2), "test")})
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"line 3, image 'b': .*b\.png: .*empty"):
        find_near_duplicates(manifest)


def test_allowed_pairs_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "allowed.csv"
    path.write_text("image_id,other_image_id,why\na,b,serial sections\n")
    assert read_allowed_pairs(path) == {frozenset(("a", "b"))}
    path.write_text("image_id,other_image_id\na,\n")
    with pytest.raises(ManifestError, match=r"allowed\.csv: line 2: a pair needs two"):
        read_allowed_pairs(path)
    path.write_text("image_id\na\n")
    with pytest.raises(ManifestError, match="lacks the columns other_image_id"):
        read_allowed_pairs(path)
    with pytest.raises(ManifestError, match="no such table"):
        read_allowed_pairs(tmp_path / "none.csv")


@pytest.mark.real
def test_different_kidney_images_are_distinguished_and_an_altered_copy_is_found(
    real_data: Path,
) -> None:
    folder = real_data / "kidney_compartments"
    labels = pd.read_csv(folder / "labels.csv").drop_duplicates("source_image").head(40)
    pictures = [read_image(folder / image) for image in labels["image"]]
    hashes = np.stack([orientation_hashes(picture) for picture in pictures])
    distances = hash_distances(hashes[:, 0], hashes)
    assert distances[~np.eye(len(pictures), dtype=bool)].min() > MAX_DISTANCE
    shifted = np.stack([orientation_hashes(picture[4:, 4:]) for picture in pictures])
    assert np.diag(hash_distances(shifted[:, 0], hashes)).max() <= MAX_DISTANCE
