from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cohort.import_folder import import_folder
from glomerulab.errors import ConfigError, ManifestError, TaxonomyError
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
    with pytest.raises(TaxonomyError, match=r"/cancer: unknown label 'cancer'.*--taxonomy.*--pat"):
        import_folder(tmp_path, PAPER)


def test_an_image_outside_of_the_class_folders_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path / "a.png")
    _touch(tmp_path / "cgn" / "b.png")
    with pytest.raises(ManifestError, match=r"a\.png: .* outside the class folders.*--pattern"):
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


def test_a_flat_folder_has_images_without_labels(tmp_path: Path) -> None:
    _touch(tmp_path / "b.png")
    _touch(tmp_path / "a.JPG")
    table = import_folder(tmp_path, PAPER).table
    assert table["image_id"].tolist() == ["a", "b"]
    assert table[list(PAPER.label_ids)].isna().all(axis=None)


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        (
            "case{patient_id}_{stain}_{n}.png",
            "case12_HE_3.png",
            {"patient_id": "12", "stain": "HE"},
        ),
        (
            "case{patient_id}_{stain}_{n}",
            "Case 12_pasm_3.TIF",
            {"patient_id": "12", "stain": "PASM"},
        ),
        (
            "{patient_id}_{stain}_{n}.png",
            "A_1_H-DAB_2.png",
            {"patient_id": "A_1", "stain": "H-DAB"},
        ),
        ("{patient_id}/{stain}/*", "P1/pas/any thing.png", {"patient_id": "P1", "stain": "PAS"}),
        ("{patient_id}_*", "deep/er/P1_x_y.bmp", {"patient_id": "P1", "stain": None}),
        ("{patient_id}-{patient_id}_{n}_{n}", "P1-P1_2_3.png", {"patient_id": "P1"}),
        ("{slide_id}__{image_id}", "s1__g1.png", {"slide_id": "s1", "image_id": "g1"}),
        ("{label}/{patient_id}_{mpp}um_*", "fsg/P1_0.5um_1.png", {"mpp": 0.5, "fsg": 1, "cgn": 0}),
        ("{patient_id}_{n}", "cgn/P1_1.png", {"patient_id": "P1", "cgn": 1, "normal": 0}),
        ("Mu\u0308ller{n}_{patient_id}", "M\u00fcller1_e\u0301.png", {"patient_id": "\u00e9"}),
    ],
)
def test_a_pattern_reads_columns_from_the_paths(tmp_path, pattern, path, fields) -> None:
    _touch(tmp_path / path)
    manifest = import_folder(tmp_path, PAPER, pattern=pattern)
    row = manifest.table.iloc[0]
    assert {name: None if pd.isna(row[name]) else row[name] for name in fields} == fields
    assert manifest.image_paths()[0].is_file()


def test_other_names_of_stains_and_labels_are_mapped(tmp_path: Path) -> None:
    _touch(tmp_path / "P1_sil_crescent.png")
    table = import_folder(
        tmp_path,
        PAPER,
        pattern="{patient_id}_{stain}_{label}",
        classes={"crescent": "cgn"},
        values={("stain", "sil"): "PASM"},
    ).table
    assert (table["stain"][0], table["cgn"][0]) == ("PASM", 1)


def test_images_that_do_not_match_a_pattern_are_counted(tmp_path: Path) -> None:
    for name in ("case1_HE_1.png", "overview.png", "case2_XY_1.png"):
        _touch(tmp_path / name)
    with pytest.raises(ManifestError, match=r"2 of 3 images.*case2_XY_1\.png"):
        import_folder(tmp_path, PAPER, pattern="case{patient_id}_{stain}_{n}.png")


@pytest.mark.parametrize(
    "pattern", ["{patient}_{n}", "{image_path}", "a*", "", "{patient_id", "{}"]
)
def test_a_pattern_without_known_fields_is_refused(tmp_path, pattern) -> None:
    _touch(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"patient_id, .*label, n"):
        import_folder(tmp_path, PAPER, pattern=pattern)
