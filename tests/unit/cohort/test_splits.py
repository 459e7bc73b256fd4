import random
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.splits import (
    assign_folds,
    balanced_parts,
    group_rows,
    parts_table,
    split_by_image,
    split_by_patient,
    split_warnings,
)
from glomerulab.errors import ManifestError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


def _manifest(rows: pd.DataFrame | dict[str, object]) -> Manifest:
    frame = pd.DataFrame(rows)
    if "image_path" not in frame:
        frame["image_path"] = frame["image_id"] + ".png"
    return manifest_from_rows(frame, folder=Path("nowhere"), taxonomy=PAPER)


def _cohort(n_patients: int, seed: int = 0, *, rare: float = 0.1) -> Manifest:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 30, n_patients)
    patient = np.repeat(np.arange(n_patients), sizes)
    kind = rng.choice(4, len(patient), p=[0.4, 0.3, 0.3 - rare, rare])
    return _manifest(
        {
            "image_id": [f"i{n:05d}" for n in range(len(patient))],
            "patient_id": [f"p{n}" for n in patient],
            "stain": np.where(patient % 2 == 0, "HE", "PAS"),
            **{name: (kind == place).astype(int) for place, name in enumerate(PAPER.label_ids)},
        }
    )


@st.composite
def cohorts(draw: st.DrawFn) -> Manifest:
    """Small cohorts of any shape: unknown labels, several at once, children of images."""
    n_patients = draw(st.integers(3, 12))
    cell = st.sampled_from([1, 0, None])
    rows: list[dict[str, object]] = []
    for patient in range(n_patients):
        for _ in range(draw(st.integers(1, 5))):
            row: dict[str, object] = {"image_id": f"i{len(rows)}", "patient_id": f"p{patient}"}
            row |= {label: draw(cell) for label in PAPER.label_ids}
            row["parent_id"] = None
            row["stain"] = draw(st.sampled_from(["HE", "PAS", None]))
            rows.append(row)
            if draw(st.booleans()):
                rows.append(row | {"image_id": f"i{len(rows)}", "parent_id": row["image_id"]})
    return _manifest(pd.DataFrame(rows))


@settings(max_examples=20)
@given(manifest=cohorts(), seed=st.integers(0, 2**32))
def test_no_patient_is_on_both_sides_and_no_part_is_empty(manifest: Manifest, seed: int) -> None:
    table = split_by_patient(manifest, seed=seed).table
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "validation", "test"}


@settings(max_examples=20)
@given(manifest=cohorts(), seed=st.integers(0, 9), n_folds=st.integers(2, 3))
def test_no_patient_is_in_two_folds_and_no_fold_is_empty(
    manifest: Manifest, seed: int, n_folds: int
) -> None:
    table = assign_folds(manifest, n_folds=n_folds, seed=seed).table
    assert table.groupby("patient_id")["fold"].nunique().max() == 1
    assert set(table["fold"]) == set(range(n_folds))


@settings(max_examples=20)
@given(manifest=cohorts(), seed=st.integers(0, 9))
def test_a_child_follows_its_parent_when_images_are_split(manifest: Manifest, seed: int) -> None:
    table = split_by_image(manifest, seed=seed).table.set_index("image_id")
    children = table[table["parent_id"].notna()]
    assert (children["split"] == table["split"][children["parent_id"]].to_numpy()).all()


@settings(max_examples=20)
@given(manifest=cohorts(), seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter_and_the_seed_decides(
    manifest: Manifest, seed: int, order: random.Random
) -> None:
    rows = list(range(len(manifest.table)))
    order.shuffle(rows)
    shuffled = manifest.with_table(manifest.table.iloc[rows])
    for divide in (split_by_patient, split_by_image):
        first = divide(manifest, seed=seed).table.set_index("image_id")["split"]
        second = divide(shuffled, seed=seed).table.set_index("image_id")["split"]
        assert first.equals(second[first.index])


@settings(max_examples=20)
@given(manifest=cohorts())
def test_nothing_but_the_split_changes(manifest: Manifest) -> None:
    before = manifest.table.copy()
    after = split_by_patient(manifest).table
    pd.testing.assert_frame_equal(manifest.table, before)
    pd.testing.assert_frame_equal(after.drop(columns="split"), before.drop(columns="split"))


@settings(max_examples=20)
@given(n=st.integers(3, 60), ratios=st.tuples(*[st.integers(1, 9)] * 3))
def test_images_that_differ_in_nothing_are_divided_exactly(
    n: int, ratios: tuple[int, int, int]
) -> None:
    manifest = _manifest({"image_id": [f"i{k}" for k in range(n)]})
    counts = parts_table(split_by_image(manifest, ratios=ratios))["images"]
    wanted = np.array(ratios) / sum(ratios) * n
    assert (abs(counts.to_numpy() - np.maximum(wanted, 1)) < 2).all()
    assert counts.sum() == n


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), n_patients=st.integers(15, 60))
def test_images_and_labels_come_near_six_two_two(seed: int, n_patients: int) -> None:
    counts = parts_table(split_by_patient(_cohort(n_patients, seed), seed=seed))
    shares = counts / counts.sum()
    wanted = np.array([[0.6], [0.2], [0.2]])
    assert abs(shares["images"] - wanted[:, 0]).max() < 0.05
    assert abs(shares - wanted).to_numpy().max() < 0.15


def test_a_large_cohort_is_balanced_to_a_hundredth_in_seconds() -> None:
    counts = parts_table(split_by_patient(_cohort(169), seed=1))
    shares = counts / counts.sum()
    assert abs(shares - np.array([[0.6], [0.2], [0.2]])).to_numpy().max() < 0.01


def test_three_thousand_images_are_split_exactly() -> None:
    manifest = _cohort(200)
    counts = parts_table(split_by_image(manifest))
    shares = counts.drop(columns="patients") / counts.drop(columns="patients").sum()
    assert abs(shares - np.array([[0.6], [0.2], [0.2]])).to_numpy().max() < 0.005


def test_another_seed_gives_another_split() -> None:
    manifest = _cohort(30)
    splits = [split_by_patient(manifest, seed=seed).table["split"] for seed in range(5)]
    assert any(not splits[0].equals(other) for other in splits[1:])


def test_a_part_of_ratio_zero_stays_empty() -> None:
    table = split_by_patient(_cohort(10), ratios=(8, 0, 2)).table
    assert set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize("ratios", [(0, 1, 1), (6, -1, 2), (1, 1), (1, float("nan"), 1)])
def test_impossible_ratios_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="ratio"):
        split_by_patient(_cohort(10), ratios=ratios)


def test_a_missing_patient_names_the_image_and_the_way_out() -> None:
    manifest = _manifest({"image_id": ["a", "b", "c"], "patient_id": ["p", None, "q"]})
    with pytest.raises(ManifestError, match=r"line 3, image 'b': patient_id is empty.*by image"):
        split_by_patient(manifest)
    assert split_by_image(manifest).table["split"].notna().all()


def test_a_child_without_patient_belongs_to_that_of_its_parent() -> None:
    manifest = _manifest(
        {
            "image_id": ["a", "b", "c", "d"],
            "patient_id": ["p", "q", "r", None],
            "parent_id": [None, None, None, "b"],
        }
    )
    table = split_by_patient(manifest).table
    assert table["split"][3] == table["split"][1]


def test_siblings_of_an_absent_parent_stay_together() -> None:
    manifest = _manifest(
        {
            "image_id": list("abcdef"),
            "parent_id": ["gone", None, None, None, None, "gone"],
        }
    )
    for seed in range(10):
        table = split_by_image(manifest, seed=seed).table
        assert table["split"][0] == table["split"][5]


def test_too_few_patients_is_a_clear_error() -> None:
    manifest = _manifest({"image_id": list("abcd"), "patient_id": ["p", "p", "q", "q"]})
    with pytest.raises(ManifestError, match=r"2 patient\(s\) cannot fill 3 parts; .* by image"):
        split_by_patient(manifest)
    with pytest.raises(ManifestError, match=r"4 image\(s\) cannot fill 5 parts"):
        assign_folds(manifest, n_folds=5, by="image")
    with pytest.raises(ManifestError, match=r"0 image\(s\) cannot fill 3 parts"):
        split_by_image(manifest.with_table(manifest.table.iloc[:0]))


def test_three_patients_fill_three_parts() -> None:
    manifest = _manifest({"image_id": list("abcd"), "patient_id": ["p", "p", "q", "r"]})
    table = split_by_patient(manifest).table
    assert table["split"][:2].tolist() == ["train", "train"]


def test_a_rare_label_is_spread_over_the_parts() -> None:
    rows = {
        "image_id": [f"i{n:02d}" for n in range(30)],
        "patient_id": [f"p{n}" for n in range(30)],
    }
    manifest = _manifest(rows | {"cgn": [1] * 3 + [0] * 27})
    for seed in range(5):
        assert parts_table(split_by_patient(manifest, seed=seed))["cgn"].tolist() == [1, 1, 1]


def test_the_test_part_stays_out_of_the_folds() -> None:
    manifest = assign_folds(split_by_patient(_cohort(20)), n_folds=4)
    table = manifest.table
    assert table["fold"][table["split"] == "test"].isna().all()
    assert table["fold"][table["split"] != "test"].notna().all()
    assert parts_table(manifest, column="fold").index.tolist() == [0, 1, 2, 3]


def test_fewer_than_two_folds_raise_a_value_error() -> None:
    with pytest.raises(ValueError, match="n_folds must be at least 2"):
        assign_folds(_cohort(5), n_folds=1)


def test_a_split_by_image_warns_of_divided_patients() -> None:
    divided = split_by_image(_cohort(10))
    n_shared = int((divided.table.groupby("patient_id")["split"].nunique() > 1).sum())
    assert n_shared > 3
    assert split_warnings(divided)[0].startswith(
        f"{n_shared} of 10 patients have images in several parts: the model sees patients"
    )
    assert split_warnings(split_by_patient(_cohort(40))) == []


def test_missing_patients_and_absent_labels_are_warnings() -> None:
    manifest = _manifest({"image_id": list("abc"), "normal": [1, 1, 1], "cgn": [0, 0, 0]})
    warnings = split_warnings(split_by_image(manifest))
    assert warnings[0].startswith("3 images have no patient_id")
    assert "no image of the train part shows: mspgn, fsg, cgn" in warnings


def test_parts_are_counted_in_patients_images_and_labels() -> None:
    manifest = _manifest(
        {
            "image_id": list("abc"),
            "patient_id": ["p", "p", "q"],
            "split": ["train", "train", "test"],
            "normal": [1, None, 0],
            "fsg": [0, 1, 1],
        }
    )
    table = parts_table(manifest)
    assert table.index.tolist() == ["train", "test"]
    assert table.loc["train"].to_dict() == {
        "patients": 1,
        "images": 2,
        "normal": 1,
        "mspgn": 0,
        "fsg": 1,
        "cgn": 0,
    }


def test_folds_by_image_warn_of_divided_patients_and_folds_by_patient_do_not() -> None:
    divided = assign_folds(_cohort(10), n_folds=3, by="image")
    n_shared = int((divided.table.groupby("patient_id")["fold"].nunique() > 1).sum())
    assert n_shared > 3
    assert split_warnings(divided, column="fold")[0].startswith(
        f"{n_shared} of 10 patients have images in several folds: the model sees patients of a fold"
    )
    assert split_warnings(assign_folds(_cohort(40), n_folds=3), column="fold") == []


def test_folds_that_share_patients_with_the_test_part_warn() -> None:
    manifest = _manifest(
        {
            "image_id": list("abc"),
            "patient_id": ["p", "p", "q"],
            "split": ["test", None, None],
            "fold": [None, 0, 1],
            "normal": [1, 1, 0],
        }
    )
    warnings = split_warnings(manifest, column="fold")
    assert warnings[0].startswith("1 of 2 patients have images in several folds")
    assert "no image of fold 1 shows: normal, mspgn, fsg, cgn" in warnings


def test_images_of_a_patient_are_one_group_numbered_by_the_smallest_id() -> None:
    manifest = _manifest({"image_id": ["d", "a", "c", "b"], "patient_id": ["x", "y", "x", "y"]})
    assert group_rows(manifest, "patient").tolist() == [1, 0, 1, 0]
    assert group_rows(manifest, "image").tolist() == [3, 0, 2, 1]


def test_grandchildren_belong_to_the_same_group() -> None:
    manifest = _manifest({"image_id": ["a", "b", "c", "d"], "parent_id": [None, "a", "b", None]})
    assert group_rows(manifest, "image").tolist() == [0, 0, 0, 1]


def test_a_child_joins_two_patients_when_it_names_one_and_its_parent_another() -> None:
    manifest = _manifest(
        {"image_id": ["a", "b", "c"], "patient_id": ["p", "q", "r"], "parent_id": [None, "a", None]}
    )
    assert group_rows(manifest, "patient").tolist() == [0, 0, 1]


def test_a_patient_and_an_image_of_one_name_are_distinct() -> None:
    manifest = _manifest({"image_id": ["a", "b"], "patient_id": ["b", "x"]})
    assert group_rows(manifest, "patient").tolist() == [0, 1]


SHARES = np.array([0.6, 0.2, 0.2])

EVERY_WAY = [np.array(parts) for parts in product(range(3), repeat=6) if set(parts) == {0, 1, 2}]


def _loss(counts: np.ndarray, shares: np.ndarray, parts: np.ndarray) -> float:
    """The loss, computed directly from its definition."""
    totals = counts.sum(axis=0)
    loss = 0.0
    for part, share in enumerate(shares):
        wanted = share * totals
        has = counts[parts == part].sum(axis=0)
        loss += float((((has - wanted)[totals > 0] / wanted[totals > 0]) ** 2).sum())
    return loss


@settings(max_examples=30)
@given(counts=arrays(np.float64, (6, 3), elements=st.integers(0, 6)), seed=st.integers(0, 99))
def test_small_problems_are_solved_as_well_as_by_trying_everything(
    counts: np.ndarray, seed: int
) -> None:
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    found = balanced_parts(counts, SHARES, np.ones(3), seed=seed)
    best = min(_loss(counts, SHARES, parts) for parts in EVERY_WAY)
    assert _loss(counts, SHARES, found) <= 1.1 * best + 1e-9


def test_no_move_or_swap_improves_the_returned_split(rng: np.random.Generator) -> None:
    counts = rng.integers(0, 10, (25, 4)).astype(np.float64)
    parts = balanced_parts(counts, SHARES, np.ones(4), seed=3)
    loss = _loss(counts, SHARES, parts)
    for group in range(25):
        for part in range(3):
            moved = parts.copy()
            moved[group] = part
            assert len(set(moved)) < 3 or _loss(counts, SHARES, moved) >= loss - 1e-9
        for other in range(group):
            swapped = parts.copy()
            swapped[[group, other]] = parts[[other, group]]
            assert _loss(counts, SHARES, swapped) >= loss - 1e-9


def test_a_column_of_weight_zero_does_not_count(rng: np.random.Generator) -> None:
    counts = np.column_stack([np.ones(30), rng.integers(0, 50, 30)]).astype(np.float64)
    parts = balanced_parts(counts, SHARES, np.array([1.0, 0.0]), seed=0)
    assert np.bincount(parts).tolist() == [18, 6, 6]


def test_no_part_is_empty_even_when_one_group_outweighs_all() -> None:
    counts = np.array([[1000.0], [1.0], [1.0]])
    assert set(balanced_parts(counts, SHARES, np.ones(1), seed=0)) == {0, 1, 2}


def test_fewer_groups_than_parts_raise_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"2 group\(s\) cannot fill 3 parts"):
        balanced_parts(np.ones((2, 1)), SHARES, np.ones(1), seed=0)
