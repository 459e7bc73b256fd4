from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from glomerulab.cohort import near_duplicates
from glomerulab.cohort.hash_join import pack_hashes
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.near_duplicates import (
    MAX_DISTANCE,
    N_BITS,
    NearDuplicate,
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


def _hashed(
    monkeypatch: pytest.MonkeyPatch, hashes: np.ndarray, parts: Sequence[str | None]
) -> list[NearDuplicate]:
    """Search among images of these hashes, which are not read from files."""
    packed = pack_hashes(hashes)
    monkeypatch.setattr(
        near_duplicates, "_hash_images", lambda manifest, rows, n_workers, track: packed[rows]
    )
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(len(hashes))],
            "image_path": [f"i{n}.png" for n in range(len(hashes))],
            "split": pd.array(list(parts), dtype="string"),
        }
    )
    manifest = manifest_from_rows(rows, folder=Path(), taxonomy=load_taxonomy("paper"))
    return find_near_duplicates(manifest)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), n_sources=st.integers(1, 5), n_images=st.integers(0, 40))
def test_equal_and_near_images_are_found_as_by_comparing_all_pairs(
    monkeypatch: pytest.MonkeyPatch, seed: int, n_sources: int, n_images: int
) -> None:
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 2, (n_sources, 8, N_BITS)).astype(bool)
    hashes = sources[rng.integers(n_sources, size=n_images)]
    hashes ^= (rng.random(hashes.shape) < 0.1) & (rng.random((n_images, 1, 1)) < 0.5)
    parts = rng.choice(np.array(["train", "validation", "test", None]), n_images)
    distances = hash_distances(hashes[:, 0], hashes)
    wanted = {
        (f"i{i}", f"i{j}", int(distances[i, j]))
        for i in range(n_images)
        for j in range(n_images)
        if parts[i] and parts[j] and parts[i] < parts[j] and distances[i, j] <= MAX_DISTANCE
    }
    found = _hashed(monkeypatch, hashes, parts)
    assert {(one.image_id, one.other_image_id, one.distance) for one in found} == wanted
    assert len(found) == len(wanted)
    assert [one.distance for one in found] == sorted(one.distance for one in found)


@pytest.mark.slow
def test_twenty_thousand_images_give_the_pairs_of_comparing_all(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    n = 20_000
    hashes = rng.integers(0, 2, (n, 8, N_BITS), dtype=np.uint8).astype(bool)
    for copy in range(300):  # of another orientation, 0 to 74 bits away
        altered = hashes[n - 1 - copy, copy % 8].copy()
        altered[rng.choice(N_BITS, copy // 4, replace=False)] ^= True
        hashes[copy, 0] = altered
    parts = np.array(["test", "train", "train", "train", "validation"])[np.arange(n) // (n // 5)]
    found = _hashed(monkeypatch, hashes, list(parts))
    signs = np.where(hashes[:, 0], np.float32(1), np.float32(-1))
    wanted = set()
    for one, others in (("test", ("train", "validation")), ("train", ("validation",))):
        here, there = np.flatnonzero(parts == one), np.flatnonzero(np.isin(parts, others))
        least = np.full((len(here), len(there)), N_BITS, dtype=np.float32)
        for turned in range(8):
            theirs = np.where(hashes[there, turned], np.float32(1), np.float32(-1))
            np.minimum(least, (N_BITS - signs[here] @ theirs.T) / 2, out=least)
        wanted |= {
            (f"i{here[i]}", f"i{there[j]}", int(least[i, j]))
            for i, j in np.argwhere(least <= MAX_DISTANCE)
        }
    assert {(pair.image_id, pair.other_image_id, pair.distance) for pair in found} == wanted
    assert len(found) == len(wanted) == 196  # those up to 48 bits away


def test_a_hundred_thousand_blank_images_end_in_a_bounded_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 5_000)
    blank = np.zeros((100_000, 8, N_BITS), dtype=bool)
    found = _hashed(monkeypatch, blank, ["train", "test"] * 50_000)
    assert len(found) == 5_000
    assert {pair.distance for pair in found} == {0}
    assert len(set(found)) == len(found)


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
