import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.schema import HALF_BOX
from glomerulab.cohort.validation import validate_manifest
from glomerulab.images import write_image
from glomerulab.taxonomy import load_taxonomy


def _manifest(folder: Path, **columns: list[object]) -> Manifest:
    """A manifest of images that are there, each a noise of its own."""
    (n,) = {len(cells) for cells in columns.values()}
    ids = [f"i{row}" for row in range(n)]
    for row, image_id in enumerate(ids):
        noise = np.random.default_rng(row).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        write_image(noise, folder / f"{image_id}.png")
    rows = pd.DataFrame({"image_id": ids, "image_path": [f"{i}.png" for i in ids]} | columns)
    return manifest_from_rows(rows, folder=folder, taxonomy=load_taxonomy("paper"))


def _messages(manifest: Manifest, **options: bool | int) -> list[str]:
    return [str(problem) for problem in validate_manifest(manifest, **options)]  # type: ignore[arg-type]


def test_a_sound_manifest_has_no_problem(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        patient_id=["p", "p", "q"],
        split=["train", "train", "test"],
        normal=[1, 0, None],
        fsg=[0, 1, 1],
        cgn=[None, 1, 1],
        parent_id=[None, "i0", None],
    )
    assert _messages(manifest) == []


def test_normal_beside_a_lesion_is_named_and_two_lesions_are_fine(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, normal=[1, 0], fsg=[1, 1], cgn=[1, 1])
    assert _messages(manifest) == [
        "line 2, image 'i0': labels normal and fsg exclude each other; keep one",
        "line 2, image 'i0': labels normal and cgn exclude each other; keep one",
    ]


def test_a_patient_in_two_parts_is_named_unless_that_is_the_protocol(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, patient_id=["p", "q", "p"], split=["train", "test", "test"], fold=[0, 1, 1]
    )
    assert _messages(manifest) == [
        f"line 4, image 'i2': patient 'p' is in {place} in line 2 already; split again by patient"
        for place in ("split train", "fold 0")
    ]
    assert _messages(manifest, allow_shared_patients=True) == []


def test_a_child_in_another_part_than_its_parent_is_always_named(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, parent_id=[None, "i0", "i0"], split=["test", "train", None], fold=[0, 0, 0]
    )
    assert _messages(manifest, allow_shared_patients=True) == [
        "line 3, image 'i1': the image is in split train, its parent 'i0' in test",
        "line 4, image 'i2': the image is in split none, its parent 'i0' in test",
    ]


def test_impossible_parents_are_named(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, parent_id=["i0", "gone"])
    assert _messages(manifest) == [
        "line 2, image 'i0': the image is its own parent",
        "line 3, image 'i1': its parent 'gone' is not in the manifest",
    ]


def test_a_slide_of_two_patients_is_named(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, patient_id=["p", "q"], slide_id=["s", "s"])
    assert _messages(manifest) == ["line 3, image 'i1': slide 's' belongs to patient 'p' in line 2"]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_missing_broken_and_doubled_pictures_are_all_named(tmp_path: Path, n_workers: int) -> None:
    manifest = _manifest(tmp_path, normal=[1, 1, 1, 1, 1])
    (tmp_path / "i1.png").unlink()
    (tmp_path / "i2.png").write_bytes((tmp_path / "i0.png").read_bytes()[:60])
    shutil.copy(tmp_path / "i0.png", tmp_path / "i4.png")
    messages = _messages(manifest, n_workers=n_workers)
    assert len(messages) == 3
    assert messages[0].startswith("line 3, image 'i1': ")
    assert "i1.png: there is no such image file" in messages[0]
    assert "line 4, image 'i2': " in messages[1]
    assert messages[2] == "line 6, image 'i4': same pixels as image 'i0' in line 2"


def test_the_same_pixels_in_another_format_are_the_same_picture(tmp_path: Path) -> None:
    from PIL import Image

    manifest = _manifest(tmp_path, normal=[1, 1])
    Image.open(tmp_path / "i0.png").save(tmp_path / "i1.png", format="BMP")
    assert "same pixels as image 'i0'" in _messages(manifest)[0]


def test_a_box_needs_all_four_values(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        x=[1, None, 1, 1],
        y=[1, None, None, 1],
        width=[8, 8, 8, None],
        height=[8, 8, 8, None],
    )
    assert _messages(manifest) == [
        f"line 4, image 'i2': {HALF_BOX}",
        f"line 5, image 'i3': {HALF_BOX}",
    ]


def test_an_image_of_another_shape_than_its_box_is_named(tmp_path: Path) -> None:
    places = {"x": [0] * 4, "y": [0] * 4, "width": [16, 17, 8, 8], "height": [16, 16, 16, 16]}
    manifest = _manifest(tmp_path, parent_id=[None, None, None, "i0"], **places)
    assert _messages(manifest) == [
        (
            "line 4, image 'i2': the image has 8 x 8 pixels, another shape "
            "than its box of 8 x 16 level-0 pixels"
        )
    ]


def test_a_box_of_pixels_that_are_not_square_has_the_shape_of_its_image(tmp_path: Path) -> None:
    place = {"x": [0, 0], "y": [0, 0], "width": [4, 8], "height": [8, 8], "mpp": [0.5, 0.5]}
    stated = {"slide_mpp_x": [1.0, 1.0], "slide_mpp_y": [0.5, 0.5]}
    (message,) = _messages(_manifest(tmp_path, **place, **stated))
    assert message.startswith("line 3, image 'i1': the image has 8 x 8 pixels, another shape")


def test_an_mpp_that_contradicts_the_slides_is_a_problem(tmp_path: Path) -> None:
    place = {"x": [0, 0], "y": [0, 0], "width": [16, 80], "height": [16, 80], "mpp": [1.0, 0.5]}
    stated = {"slide_mpp_x": [0.5, 0.5], "slide_mpp_y": [0.5, 0.5]}
    (message,) = _messages(_manifest(tmp_path, **place, **stated))
    assert message.startswith("line 3, image 'i1': the image has 8 pixels across at 0.5 µm")


def test_rows_without_id_or_path_do_not_hide_other_problems(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, normal=[1, 1, 1], fsg=[1, 0, 0])
    table = manifest.table.copy()
    table.loc[0, "image_id"] = pd.NA
    table.loc[1, "image_path"] = pd.NA
    (tmp_path / "i2.png").unlink()
    messages = _messages(manifest.with_table(table))
    assert messages[0] == "line 2: labels normal and fsg exclude each other; keep one"
    assert messages[1].startswith("line 4, image 'i2': ")


def test_without_pixels_only_missing_files_are_named(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, normal=[1, 1])
    (tmp_path / "i0.png").write_bytes(b"")
    (tmp_path / "i1.png").unlink()
    assert _messages(manifest, check_pixels=False) == [
        f"line 3, image 'i1': {tmp_path / 'i1.png'}: no such image"
    ]
