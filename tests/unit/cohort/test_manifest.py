import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cohort.manifest import (
    manifest_from_rows,
    parse_manifest,
    raise_first,
    read_manifest,
    write_manifest,
)
from glomerulab.cohort.schema import MANIFEST_COLUMNS
from glomerulab.cohort.splits import split_by_patient
from glomerulab.errors import ManifestError, OutputError, TaxonomyError
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy, write_taxonomy

PAPER = load_taxonomy("paper")
TWO = Taxonomy(
    "two",
    (
        Label(id="benign", name="Benign", excludes=("malignant",)),
        Label(id="malignant", name="Malignant"),
    ),
)


def _write(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_two_columns_are_enough_and_the_others_are_there_and_empty(tmp_path: Path) -> None:
    manifest = read_manifest(_write(tmp_path, "image_id,image_path\na,images/a.png\n"))
    assert list(manifest.table) == [*MANIFEST_COLUMNS, *PAPER.label_ids]
    assert manifest.table.drop(columns=["image_id", "image_path"]).isna().all(axis=None)
    assert manifest.table.dtypes.astype(str).to_dict() == {
        **dict.fromkeys(MANIFEST_COLUMNS, "string"),
        "mpp": "Float64",
        **dict.fromkeys(("x", "y", "width", "height", "fold"), "Int64"),
        **dict.fromkeys(PAPER.label_ids, "Int8"),
    }


def test_image_paths_start_from_the_manifest_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "image_id,image_path\na,images/a.png\n")
    monkeypatch.chdir(tmp_path)
    assert read_manifest(Path("manifest.csv")).image_paths() == [tmp_path / "images" / "a.png"]


def test_unknown_labels_stay_unknown(tmp_path: Path) -> None:
    text = "image_id,image_path,normal,mspgn\na,a.png,1,0\nb,b.png,,1\n"
    manifest = read_manifest(_write(tmp_path, text))
    assert manifest.table["normal"].tolist() == [1, pd.NA]
    assert str(manifest.labels().tolist()) == "[[1.0, 0.0, nan, nan], [nan, 1.0, nan, nan]]"


def test_ids_that_look_like_numbers_or_missing_values_stay_text(tmp_path: Path) -> None:
    text = "image_id,image_path,patient_id\n007,a.png,NA\nnull,b.png,1e3\n"
    table = read_manifest(_write(tmp_path, text)).table
    assert table["image_id"].tolist() == ["007", "null"]
    assert table["patient_id"].tolist() == ["NA", "1e3"]


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("stain", "he", "one of HE, PAS, PASM, TRI, H-DAB, other"),
        ("split", "training", "one of train, validation, test"),
        ("mpp", "0", "micrometres per pixel above 0"),
        ("mpp", "0.5 um", "micrometres per pixel above 0"),
        ("mpp", "inf", "micrometres per pixel above 0"),
        ("x", "1.5", "a whole number"),
        ("width", "0", "a whole number of at least 1"),
        ("fold", "-1", "a whole number of at least 0"),
        ("normal", "2", r"1, 0 or empty \(unknown\)"),
        ("cgn", "yes", r"1, 0 or empty \(unknown\)"),
    ],
)
def test_a_malformed_cell_is_refused_by_line_and_image(
    tmp_path: Path, column: str, cell: str, rule: str
) -> None:
    path = _write(tmp_path, f"image_id,image_path,{column}\na,a.png,\nb,b.png,{cell}\n")
    message = rf"manifest\.csv: line 3, image 'b': {column} must be {rule}, got '{cell}'"
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_every_bad_cell_is_found_in_the_order_of_the_rows(tmp_path: Path) -> None:
    text = "image_id,image_path,mpp,normal\na,a.png,-1,1\n,b.png,1,7\na,,1,0\n"
    manifest, problems = parse_manifest(_write(tmp_path, text))
    assert [str(problem) for problem in problems] == [
        "line 2, image 'a': mpp must be micrometres per pixel above 0, got '-1'",
        "line 3: image_id is empty",
        "line 3: normal must be 1, 0 or empty (unknown), got '7'",
        "line 4, image 'a': image_path is empty",
        "line 4, image 'a': image_id is in line 2 already",
    ]
    assert manifest.table["normal"].tolist() == [1, pd.NA, 0]
    with pytest.raises(ManifestError, match=r"and 4 more; `glomerulab manifest check`"):
        raise_first(problems, where="m")


def test_blank_lines_are_ignored_at_the_end_and_reported_elsewhere(tmp_path: Path) -> None:
    read_manifest(_write(tmp_path, "image_id,image_path\na,a.png\n\n\n"))
    with pytest.raises(ManifestError, match="line 3: image_id is empty"):
        read_manifest(_write(tmp_path, "image_id,image_path\na,a.png\n\nb,b.png\n"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the manifest is empty"),
        (
            b"image_id,patient_id\na,1\n",
            r".*image_path; .*manifest import",
        ),
        (b"image_id,image_path,stain,stain\na,a.png,HE,HE\n", ".*two columns 'stain'"),
        (b"image_id,image_path\na,a.png,1,2\n", "line 2"),
        (b"image_id,image_path\n\x81\x8d,a.png\n", ".*UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=rf"manifest\.csv: {reason}"):
        read_manifest(path)


def test_a_missing_file_and_another_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "manifest.csv")
    with pytest.raises(ManifestError, match=r"must end in \.csv or \.parquet"):
        read_manifest(tmp_path / "manifest.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(ManifestError, match=r"broken\.parquet: .*cannot be read"):
        read_manifest(tmp_path / "broken.parquet")


def test_a_table_of_the_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert len(read_manifest(_write(tmp_path, "image_id,image_path\n")).table) == 0


def test_a_byte_order_mark_and_chinese_text_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "肾 活检"
    folder.mkdir()
    (folder / "manifest.csv").write_text(
        "image_id,image_path,patient_id\n图 1,图 1.png,张\n", encoding="utf-8-sig"
    )
    manifest = read_manifest(folder / "manifest.csv")
    assert manifest.image_paths() == [folder / "图 1.png"]
    assert manifest.table["patient_id"].tolist() == ["张"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_paths_are_expressed_anew_when_a_manifest_moves(tmp_path: Path, suffix: str) -> None:
    manifest = read_manifest(_write(tmp_path, "image_id,image_path,who\na,images/a.png,Li\n"))
    (tmp_path / "out" / "deep").mkdir(parents=True)
    moved = tmp_path / "out" / "deep" / f"m.{suffix}"
    write_manifest(manifest, moved)
    again = read_manifest(moved)
    assert again.table["image_path"].tolist() == ["../../images/a.png"]
    assert [p.resolve() for p in again.image_paths()] == manifest.image_paths()
    assert again.table["who"].tolist() == ["Li"]


def test_another_taxonomy_is_written_beside_and_found_again(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a"], "image_path": ["a.png"], "benign": [1]})
    write_manifest(manifest_from_rows(rows, folder=tmp_path, taxonomy=TWO), tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").taxonomy == TWO


def test_a_folder_holds_manifests_of_one_taxonomy(tmp_path: Path) -> None:
    write_taxonomy(TWO, tmp_path / "taxonomy.toml")
    rows = pd.DataFrame({"image_id": ["a"], "image_path": ["a.png"]})
    manifest = manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    with pytest.raises(ManifestError, match=r"taxonomy\.toml: .*another folder"):
        write_manifest(manifest, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_a_label_called_like_a_column_is_refused(tmp_path: Path) -> None:
    taxonomy = Taxonomy("bad", (Label(id="fold", name="Fold"), Label(id="b", name="B")))
    path = _write(tmp_path, "image_id,image_path\na,a.png\n")
    with pytest.raises(TaxonomyError, match="names of manifest columns: fold"):
        read_manifest(path, taxonomy)


def test_rows_made_in_memory_are_checked_too(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a"], "image_path": ["a.png"], "stain": ["H&E"]})
    with pytest.raises(ManifestError, match="stain must be one of"):
        manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    with pytest.raises(ManifestError, match="lacks the columns image_path"):
        manifest_from_rows(rows[["image_id"]], folder=tmp_path, taxonomy=PAPER)


def test_writing_below_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a"], "image_path": ["a.png"]})
    manifest = manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    with pytest.raises(OutputError, match="cannot be written"):
        write_manifest(manifest, tmp_path / "nowhere" / "m.csv")
    with pytest.raises(ManifestError, match="must end in"):
        write_manifest(manifest, tmp_path / "m.txt")


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda text: text.strip() == text
)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "patient_id": st.none() | TEXT,
                "stain": st.sampled_from([None, "HE", "PAS", "PASM", "TRI", "H-DAB", "other"]),
                "mpp": st.none() | st.floats(1e-3, 1e3),
                "x": st.none() | st.integers(-(2**40), 2**40),
                "fold": st.none() | st.integers(0, 9),
                "normal": st.sampled_from([None, 0, 1]),
                "note": TEXT,
            }
        ),
        min_size=1,
        max_size=6,
    ),
    suffix=st.sampled_from(["csv", "parquet"]),
)
def test_a_manifest_reads_back_as_it_was_written(
    rows: list[dict[str, object]], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("m")
    frame = pd.DataFrame(rows).astype({"note": "string"})
    frame.insert(0, "image_id", [f"i{n}" for n in range(len(rows))])
    frame.insert(1, "image_path", [f"{n} 肾.png" for n in range(len(rows))])
    manifest = manifest_from_rows(frame, folder=folder, taxonomy=PAPER)
    write_manifest(manifest, folder / f"m.{suffix}")
    again = read_manifest(folder / f"m.{suffix}")
    pd.testing.assert_frame_equal(again.table, manifest.table)


def test_another_table_keeps_folder_and_taxonomy(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"], "image_path": ["a.png", "b.png"]})
    manifest = manifest_from_rows(rows, folder=tmp_path, taxonomy=PAPER)
    part = manifest.with_table(manifest.table.iloc[1:])
    assert part.table.index.tolist() == [0]
    assert (part.folder, part.taxonomy) == (tmp_path, PAPER)


def test_messages_name_the_file_and_for_rows_in_memory_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("image_id,image_path\na,a.png\n", encoding="utf-8")
    manifest = read_manifest(tmp_path / "cohort.csv")
    with pytest.raises(ManifestError, match=r"cohort\.csv: .*patient_id is empty"):
        split_by_patient(manifest)
    in_memory = manifest_from_rows(manifest.table, folder=tmp_path, taxonomy=manifest.taxonomy)
    assert in_memory.location == str(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_chosen_columns_are_read_alone_under_any_spelling(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    rows = pd.DataFrame(
        {"id": ["a", "b"], "path": ["a.png", "b.png"], "Patient No": [7, 8], "mpp": ["x", "y"]}
    )
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    table = read_manifest(path, columns=["patient_id", "split"]).table
    assert list(table) == ["image_id", "image_path", "patient_id", "split"]
    assert table["patient_id"].tolist() == ["7", "8"]
    assert table["split"].isna().all()
    with pytest.raises(ManifestError, match="mpp"):
        read_manifest(path)


@given(st.lists(st.one_of(st.none(), st.text(max_size=5), st.sampled_from([" a", "a\x1c", "é"]))))
def test_text_of_a_parquet_file_is_composed_and_stripped(cells: list[str | None]) -> None:
    taxonomy = load_taxonomy("paper")
    n = len(cells)
    rows = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(n)],
            "image_path": ["i.png"] * n,
            "patient_id": pd.array(cells, dtype="string"),
        }
    )
    table = manifest_from_rows(rows, folder=Path(), taxonomy=taxonomy).table
    wanted = [unicodedata.normalize("NFC", cell or "").strip() or None for cell in cells]
    assert table["patient_id"].astype(object).where(table["patient_id"].notna(), None).tolist() == (
        wanted
    )
