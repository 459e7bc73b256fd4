import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cohort.leakage import (
    check_target_leaks,
    find_leaks,
    find_target_leaks,
    leaked_targets,
    patients_in_several_parts,
    target_leak_parts,
)
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import LeakageError
from glomerulab.images import write_image
from glomerulab.stain.reference import StainReference, aggregate
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy
from tests.support.beer_lambert import HE, section, unit_rows

TAXONOMY = Taxonomy("one", (Label(id="normal", name="Normal"),))
VECTORS = tuple(map(tuple, unit_rows(HE)))


def _manifest(tmp_path: Path, **columns: list[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    rows = {"image_id": [f"i{k}" for k in range(n)], "image_path": [f"{k}.png" for k in range(n)]}
    return manifest_from_rows(pd.DataFrame(rows | columns), folder=tmp_path, taxonomy=TAXONOMY)


def test_a_patient_in_two_parts_is_named(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, patient_id=["a", "a", "b", "b"], split=["train", "train", "test", "train"]
    )
    assert find_leaks(manifest) == [
        "1 patient has images in several parts, such as 'b' in test, train"
    ]


@pytest.mark.parametrize("column", ["parent_id", "partner_id"])
def test_a_copy_in_another_part_than_its_original_is_named(tmp_path: Path, column: str) -> None:
    manifest = _manifest(tmp_path, split=["train", "test", "train"], **{column: [None, "i0", "i0"]})
    (leak,) = find_leaks(manifest)
    assert leak.startswith("1 copy is in another part than the ")
    assert "'i1' in test with 'i0' in train" in leak


def test_patients_in_several_parts_are_returned_with_their_parts() -> None:
    table = pd.DataFrame(
        {"patient_id": ["b", "b", "a", "a", None, None], "split": ["x", "w", "x", None, "w", "x"]}
    )
    assert patients_in_several_parts(table) == {"b": ("w", "x")}


def test_undivided_patients_unused_images_and_unknown_patients_are_no_leak(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        patient_id=["a", "a", "b", None, None],
        split=["train", None, "test", "test", "train"],
        parent_id=[None, "i0", None, None, "elsewhere"],
    )
    assert find_leaks(manifest) == []


def _target(source: str, n_sources: int = 1) -> StainReference:
    return StainReference(
        "HE", VECTORS, (1.0, 1.0), (240.0, 240.0, 240.0), source, n_sources=n_sources
    )


@pytest.fixture
def cohort(tmp_path: Path) -> Manifest:
    """Six images of five patients; p3 has one in the test part and one in none."""
    rows = [
        ("a", "p0", "s0", "train"),
        ("b", "p1", "s1", "train"),
        ("c", "p2", "s2", "validation"),
        ("d", "p3", "s3", "test"),
        ("e", "p3", "s4", None),
        ("f", None, None, "test"),
    ]
    for place, (image_id, *_) in enumerate(rows):
        write_image(section(place, size=32).image, tmp_path / f"{image_id}.png")
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "slide_id", "split"])
    table["image_path"] = table["image_id"] + ".png"
    return manifest_from_rows(table, folder=tmp_path, taxonomy=load_taxonomy("paper"))


def _found(cohort: Manifest, source: str, n_sources: int = 1) -> tuple[str, str, str] | None:
    leak = find_target_leaks(cohort, {"HE": _target(source, n_sources)}).get("HE")
    return None if leak is None else (leak.part, leak.image_id, leak.patient_id)


@pytest.mark.parametrize("source", ["a", "s1", "elsewhere.png", "", "x" * 5000, "bad\0name"])
def test_a_target_from_training_or_from_elsewhere_is_no_leak(cohort: Manifest, source: str) -> None:
    assert _found(cohort, source) is None


def test_a_target_is_found_by_image_or_slide(cohort: Manifest) -> None:
    assert _found(cohort, "d") == ("test", "d", "")
    assert _found(cohort, "s2") == ("validation", "c", "")


@pytest.mark.parametrize(("name", "part"), [("c", "validation"), ("f", "test")])
def test_a_target_is_found_by_its_file_and_by_a_copy_of_it(
    cohort: Manifest, tmp_path: Path, name: str, part: str
) -> None:
    original, copy = cohort.folder / f"{name}.png", tmp_path / "target.png"
    shutil.copy(original, copy)
    assert _found(cohort, str(original)) == (part, name, "")
    assert _found(cohort, str(copy)) == (part, name, "")


def test_another_picture_of_the_same_size_is_no_leak(cohort: Manifest, tmp_path: Path) -> None:
    content = bytearray((cohort.folder / "d.png").read_bytes())
    content[-20] ^= 1
    (tmp_path / "target.png").write_bytes(content)
    assert _found(cohort, str(tmp_path / "target.png")) is None


def test_another_image_of_a_test_patient_is_found(cohort: Manifest) -> None:
    assert _found(cohort, "e") == ("test", "d", "p3")
    text = str(find_target_leaks(cohort, {"HE": _target("e")})["HE"])
    assert "patient 'p3', whose image 'd'" in text
    assert "training image" in text


def test_every_image_of_a_mean_target_is_searched_and_the_worst_is_named(
    cohort: Manifest, tmp_path: Path
) -> None:
    sources = [str(cohort.folder / f"{name}.png") for name in "ace"]
    mean = aggregate([_target(source) for source in sources], source=", ".join(sources))
    leak = find_target_leaks(cohort, {"HE": mean})["HE"]
    assert (leak.part, leak.source, leak.patient_id) == ("test", sources[2], "p3")
    harmless = replace(mean, source=", ".join(sources[:1]))
    assert find_target_leaks(cohort, {"HE": harmless}) == {}


def test_a_file_whose_name_holds_a_comma_is_one_file(cohort: Manifest, tmp_path: Path) -> None:
    shutil.copy(cohort.folder / "d.png", tmp_path / "a, b.png")
    assert _found(cohort, str(tmp_path / "a, b.png"), n_sources=16) == ("test", "d", "")


def test_without_a_split_nothing_is_known(cohort: Manifest) -> None:
    unsplit = cohort.with_table(cohort.table.assign(split=pd.array([None] * 6, dtype="string")))
    assert _found(unsplit, "d") is None


def test_missing_images_are_passed_over(cohort: Manifest, tmp_path: Path) -> None:
    shutil.copy(cohort.folder / "d.png", tmp_path / "target.png")
    for name in "abc":
        (cohort.folder / f"{name}.png").unlink()
    assert _found(cohort, str(tmp_path / "target.png")) == ("test", "d", "")


def test_a_leak_can_be_made_an_error(cohort: Manifest) -> None:
    leaks = find_target_leaks(cohort, {"HE": _target("d")})
    with pytest.raises(LeakageError, match="image 'd' of the test part") as raised:
        check_target_leaks(cohort, leaks)
    assert raised.value.where == cohort.location
    check_target_leaks(cohort, {})


def test_notes_of_a_manifest_are_read_back(cohort: Manifest) -> None:
    assert target_leak_parts(cohort) == []
    noted = cohort.table.assign(stain_target_leak=["test", None, "validation", "test", None, None])
    assert target_leak_parts(cohort.with_table(noted)) == ["test", "validation"]


def test_the_leaked_targets_are_named_with_stain_and_source(cohort: Manifest) -> None:
    assert leaked_targets(cohort) == {}
    noted = cohort.table.assign(
        stain=pd.array(["HE", "HE", "PAS", "HE", None, None], dtype="string"),
        stain_target=["d", "d", "c", "d", None, None],
        stain_target_leak=["test", None, "validation", "test", None, None],
    )
    named = leaked_targets(cohort.with_table(noted))
    assert named == {
        "test": "the stain target for HE, d,",
        "validation": "the stain target for PAS, c,",
    }
