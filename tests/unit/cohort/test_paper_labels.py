import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.cohort.paper_labels import import_paper_labels, write_paper_labels
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")
LINES = (
    '{"image_name": "0496052bb_1.png", "正常肾小球": 1, "节段性硬化": 0, "系膜细胞增生": 0, "新月体形成": 0}',  # noqa: E501
    '{"image_name": "0496052bb_10.png", "正常肾小球": 0, "节段性硬化": 0, "系膜细胞增生": 1, "新月体形成": 0}',  # noqa: E501
    '{"image_name": "0496052bb_100.png", "正常肾小球": 0, "节段性硬化": 1, "系膜细胞增生": 0, "新月体形成": 0}',  # noqa: E501
)
"""The first three objects of Fig. 5b, as printed."""


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "[" + "\n".join(LINES),  # as the figure prints it: no commas, no closing bracket
        "[" + ",\n".join(LINES) + "]\n",
        "\n".join(LINES),
        "\ufeff" + ",\r\n".join(LINES),
    ],
)
def test_the_figure_is_read_however_its_objects_are_joined(tmp_path: Path, text: str) -> None:
    table = import_paper_labels(_write(tmp_path / "labels.json", text), PAPER).table
    assert table["image_id"].tolist() == ["0496052bb_1", "0496052bb_10", "0496052bb_100"]
    assert table["image_path"].tolist()[0] == "0496052bb_1.png"
    assert table[["normal", "mspgn", "fsg", "cgn"]].to_numpy().tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", "[" + ",\n".join(LINES) + "]\n"),
        ("labels.jsonl", "".join(f"{line}\n" for line in LINES)),
    ],
)
def test_the_bytes_are_equal_after_reading_and_writing(
    tmp_path: Path, name: str, text: str
) -> None:
    path = _write(tmp_path / name, text)
    write_paper_labels(import_paper_labels(path, PAPER), tmp_path / f"again_{name}")
    assert (tmp_path / f"again_{name}").read_bytes() == path.read_bytes()


def test_one_file_per_image_makes_the_round_trip_too(tmp_path: Path) -> None:
    folder = tmp_path / "标签 文件"
    folder.mkdir()
    for line in LINES:
        name = json.loads(line)["image_name"].removesuffix(".png")
        _write(folder / f"{name}.json", f"{line}\n")
    manifest = import_paper_labels(folder, PAPER, image_root=tmp_path / "images")
    assert manifest.folder == tmp_path / "images"
    write_paper_labels(manifest, tmp_path / "again")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


@settings(max_examples=40)
@given(flags=st.lists(st.lists(st.sampled_from([1, 0, None]), min_size=4, max_size=4), min_size=1))
def test_labels_survive_the_round_trip_also_unknown_ones(
    flags: list[list[int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    rows = pd.DataFrame(flags, columns=list(PAPER.label_ids), dtype=object)
    rows["image_id"] = [f"i{n}" for n in range(len(rows))]
    rows["image_path"] = [f"i{n}.png" for n in range(len(rows))]
    manifest = manifest_from_rows(rows, folder=folder, taxonomy=PAPER)
    write_paper_labels(manifest, folder / "labels.json")
    again = import_paper_labels(folder / "labels.json", PAPER)
    pd.testing.assert_frame_equal(again.table, manifest.table)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"正常肾小球": 1}]', r"l\.json: object 1: the object has no 'image_name'"),
        (
            '[{"image_name": "a.png", "正常肾小球": 2}]',
            "object 1, image 'a.png': 正常肾小球 must be",
        ),
        ('[{"image_name": "a.png", "正常肾小球": true}]', "must be 1, 0 or null, got True"),
        ('[{"image_name": "a.png"}, {"image_name": "a.png"}]', "image_id is in line 2 already"),
        ('[{"image_name": "a.png"', r"l\.json: the label file is not JSON: line 1"),
        ("[1]", "1 is not an object of one image"),
        ("[]", r"l\.json: the label file holds no JSON object"),
        ('[{"image_name": "a.png", "正常肾小球": [1]}]', r"must be 1, 0 or null, got \[1\]"),
        ('[{"image_name": "."}]', "object 1: the object has no 'image_name'"),
        (
            '[{"image_name": "a.png", "正常肾小球": 1, "normal": 0}]',
            "normal is a second key of label 'normal'",
        ),
        (
            '[{"image_name": "a.png", "正常肾小球": 1, "正常肾小球": 0}]',
            "key '正常肾小球' is given twice",
        ),
        ('[{"image_name": "a.png", "正常肾小球": ' + "1" * 5000 + "}]", "not valid JSON"),
    ],
)
def test_an_object_that_breaks_a_rule_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        import_paper_labels(_write(tmp_path / "l.json", text), PAPER)


def test_a_key_that_is_not_a_label_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "l.json", '[{"image_name": "a.png", "癌": 1}]')
    with pytest.raises(TaxonomyError, match=r"object 1, image 'a\.png': unknown label '癌'"):
        import_paper_labels(path, PAPER)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such label file"):
        import_paper_labels(tmp_path / "none.json", PAPER)
    with pytest.raises(ManifestError, match=r"holds no \.json file"):
        import_paper_labels(tmp_path, PAPER)
    (tmp_path / "gbk.json").write_bytes('{"image_name": "肾.png"}'.encode("gbk"))
    with pytest.raises(ManifestError, match="not text in UTF-8"):
        import_paper_labels(tmp_path / "gbk.json", PAPER)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"], "image_path": ["x/1.png", "y/1.png"]})
    manifest = manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    with pytest.raises(ManifestError, match=r"2 images are named '1\.png'"):
        write_paper_labels(manifest, tmp_path / "l.json")
    with pytest.raises(ManifestError, match=r"\.json or \.jsonl file"):
        write_paper_labels(manifest.with_table(manifest.table[:1]), tmp_path / "l.xml")


def test_a_folder_of_labels_never_writes_one_file_for_two_images(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"], "image_path": ["1.png", "1.jpg"]})
    manifest = manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    with pytest.raises(ManifestError, match=r"'1\.png' and '1\.jpg'"):
        write_paper_labels(manifest, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()
    write_paper_labels(manifest, tmp_path / "labels.json")
