from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.contact_sheet import contact_sheet, write_contact_sheet
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError
from glomerulab.images import read_image, write_image
from glomerulab.taxonomy import load_taxonomy


def _manifest(folder: Path, n: int = 5) -> Manifest:
    for row in range(n):
        write_image(np.full((20, 30, 3), 40 * row, dtype=np.uint8), folder / f"{row}.png")
    rows = pd.DataFrame(
        {
            "image_id": [f"image {row} with a long name" for row in range(n)],
            "image_path": [f"{row}.png" for row in range(n)],
            "stain": ["HE", "PAS"] * (n // 2) + ["HE"] * (n % 2),
            "cgn": [1] * n,
        }
    )
    return manifest_from_rows(rows, folder=folder, taxonomy=load_taxonomy("paper"))


def test_images_of_each_class_and_stain_are_laid_out_at_their_place(tmp_path: Path) -> None:
    red = np.full((10, 20, 3), (255, 0, 0), dtype=np.uint8)
    sheet = contact_sheet(
        {"first": [("a", red), ("b", red)], "second": [("c", red)]}, cell_px=40, n_columns=2
    )
    is_red = (sheet == (255, 0, 0)).all(axis=2)
    assert is_red.sum() == 3 * 40 * 20  # fitted into 40 x 40 without distortion
    assert (sheet[:, -1] == 255).all()


def test_an_image_that_cannot_be_read_is_crossed_out_and_returned(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    errors = write_contact_sheet(manifest, tmp_path / "sheet.png", n_workers=2)
    assert [error.message for error in errors] == ["the file is empty (0 bytes)"]
    sheet = read_image(tmp_path / "sheet.png")
    assert (sheet == (255, 0, 0)).all(axis=2).any()


def test_only_so_many_of_a_group_are_shown(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    write_contact_sheet(manifest, tmp_path / "one.png", n_per_group=1)
    write_contact_sheet(manifest, tmp_path / "all.png", n_per_group=3)
    assert read_image(tmp_path / "one.png").shape[1] < read_image(tmp_path / "all.png").shape[1]


def test_nothing_to_show_and_cells_too_small_are_refused(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, n=1)
    with pytest.raises(ManifestError, match="has no rows"):
        write_contact_sheet(manifest.with_table(manifest.table[:0]), tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="cell_px must be at least 16"):
        contact_sheet({}, cell_px=8)
