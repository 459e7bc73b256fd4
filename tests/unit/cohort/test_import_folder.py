from pathlib import Path

import pytest

from glomerulab.cohort.import_folder import import_folder
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_folder_is_the_label_by_id_or_by_either_name(tmp_path: Path) -> None:
    for place in ("cgn/a.png", "正常肾小球/deep/b 1.JPG", "Segmental sclerosis/c.tif", "cgn/x.txt"):
        _touch(tmp_path / place)
    table = import_folder(tmp_path, PAPER).table
    assert table["image_id"].tolist() == ["Segmental sclerosis/c", "cgn/a", "正常肾小球/deep/b 1"]
    assert table[list(PAPER.label_ids)].to_numpy().tolist() == [
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
    ]
    assert table["patient_id"].isna().all()


def test_an_unknown_folder_is_not_a_label(tmp_path: Path) -> None:
    _touch(tmp_path / "cancer" / "a.png")
    with pytest.raises(TaxonomyError, match=r"/cancer: unknown label 'cancer'.*--taxonomy"):
        import_folder(tmp_path, PAPER)


def test_an_image_outside_of_the_class_folders_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path / "a.png")
    with pytest.raises(ManifestError, match=r"a\.png: .* outside the class folders"):
        import_folder(tmp_path, PAPER)


def test_two_suffixes_of_one_name_would_be_one_id(tmp_path: Path) -> None:
    _touch(tmp_path / "cgn" / "a.png")
    _touch(tmp_path / "cgn" / "a.jpg")
    with pytest.raises(ManifestError, match=r"cgn/a\.png: .*as a\.jpg"):
        import_folder(tmp_path, PAPER)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no image"):
        import_folder(tmp_path, PAPER)
    with pytest.raises(ManifestError, match="is not a folder"):
        import_folder(tmp_path / "none", PAPER)
