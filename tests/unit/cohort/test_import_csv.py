import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cohort.import_csv import ColumnMapping, import_csv
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")
TEXT = """file,who,dye,finding,note
a/1.png,007,sil,Crescent,x
a/2.png,8,he,healthy,y
a/3.png,8,he,,z
"""


def _source(folder: Path, text: str = TEXT) -> Path:
    path = folder / "source.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _mapping(**changes: object) -> ColumnMapping:
    given: dict[str, object] = {
        "columns": {"image_path": "file", "patient_id": "who", "stain": "dye"},
        "constants": {"mpp": "0.25"},
        "label_column": "finding",
        "classes": {"healthy": "normal"},
        "values": {("stain", "sil"): "PASM", ("stain", "he"): "HE"},
    }
    return ColumnMapping(**(given | changes))  # type: ignore[arg-type]


def test_columns_constants_classes_and_values_are_mapped(tmp_path: Path) -> None:
    manifest = import_csv(_source(tmp_path), _mapping(), PAPER, image_root=tmp_path / "img")
    table = manifest.table
    assert manifest.folder == tmp_path / "img"
    assert table["image_id"].tolist() == ["a/1", "a/2", "a/3"]
    assert table["patient_id"].tolist() == ["007", "8", "8"]
    assert table["stain"].tolist() == ["PASM", "HE", "HE"]
    assert table["mpp"].tolist() == [0.25] * 3
    assert table["cgn"].tolist() == [1, 0, pd.NA]
    assert table["normal"].tolist() == [0, 1, pd.NA]
    assert table["note"].tolist() == ["x", "y", "z"]
    assert "dye" not in table


def test_label_columns_of_their_own_are_mapped_one_by_one(tmp_path: Path) -> None:
    path = _source(tmp_path, "image,C,S\na.png,1,1\nb.png,0,\n")
    mapping = ColumnMapping({"image_path": "image", "cgn": "C", "fsg": "S"})
    table = import_csv(path, mapping, PAPER).table
    assert table["cgn"].tolist() == [1, 0]
    assert table["fsg"].tolist() == [1, pd.NA]
    assert table["normal"].isna().all()


def test_columns_called_as_in_a_manifest_need_no_mapping_and_are_not_lost(tmp_path: Path) -> None:
    path = _source(tmp_path, "image_path,patient_id,stain,mpp,cgn\na.png,007,sil,0.5,1\n")
    table = import_csv(path, ColumnMapping({}, values={("stain", "sil"): "PASM"}), PAPER).table
    assert table.loc[0, ["image_id", "patient_id", "stain"]].tolist() == ["a", "007", "PASM"]
    assert table.loc[0, ["mpp", "cgn"]].tolist() == [0.5, 1]


def test_a_mapping_takes_precedence_over_a_column_name(tmp_path: Path) -> None:
    path = _source(tmp_path, "image_path,stain,patient_id,who,cgn,class\na.png,x,1,2,0,cgn\n")
    mapping = ColumnMapping({"patient_id": "who"}, constants={"stain": "HE"}, label_column="class")
    table = import_csv(path, mapping, PAPER).table
    assert table.loc[0, ["patient_id", "stain", "cgn"]].tolist() == ["2", "HE", 1]


def test_an_unknown_class_names_its_line_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        TaxonomyError, match=r"source\.csv: line 3: unknown label 'healthy'.*--class"
    ):
        import_csv(_source(tmp_path), _mapping(classes={}), PAPER)


def test_a_bad_cell_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"source\.csv: line 2, image 'a/1': stain must be"):
        import_csv(_source(tmp_path), _mapping(values={("stain", "he"): "HE"}), PAPER)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"columns": {"image_path": "picture"}}, "no column 'picture', only 'file', "),
        ({"columns": {"image_path": "file", "nose": "who"}}, "no column or label nose"),
        ({"constants": {"eye": "1"}}, "no column or label eye"),
        ({"label_column": "none"}, "no column 'none'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ManifestError, match=reason):
        import_csv(_source(tmp_path), _mapping(**changes), PAPER)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such table"):
        import_csv(tmp_path / "none.csv", _mapping(), PAPER)
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"file\n\x81\x8d\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        import_csv(path, _mapping(), PAPER)


@pytest.mark.real
def test_glas_is_imported_by_column_mapping(real_data: Path) -> None:
    mapping = ColumnMapping(
        {"image_path": "image", "patient_id": "patient_id"},
        constants={"stain": "HE"},
        label_column="label",
    )
    glas = load_taxonomy(Path(__file__).parents[3] / "configs" / "taxonomies" / "glas.toml")
    folder = real_data / "glas_colon_he"
    table = import_csv(folder / "labels.csv", mapping, glas, image_root=folder / "images").table
    assert (len(table), table["patient_id"].nunique()) == (165, 16)
    assert (table["benign"].sum(), table["malignant"].sum()) == (74, 91)


def test_a_column_given_twice_is_refused_and_a_trailing_comma_is_not(tmp_path: Path) -> None:
    path = _source(tmp_path, "image,C,C\na.png,1,0\n")
    with pytest.raises(ManifestError, match="two columns 'C'"):
        import_csv(path, ColumnMapping({"image_path": "image", "cgn": "C"}), PAPER)
    path = _source(tmp_path, "image,C,,\na.png,1,,\n")
    table = import_csv(path, ColumnMapping({"image_path": "image", "cgn": "C"}), PAPER).table
    assert table["cgn"].tolist() == [1]


def test_a_table_without_a_column_of_paths_names_the_way_out(tmp_path: Path) -> None:
    path = _source(tmp_path, "picture,who\na.png,P1\n")
    with pytest.raises(ManifestError, match="--column image_path=NAME"):
        import_csv(path, ColumnMapping({"patient_id": "who"}), PAPER)


def test_a_table_of_german_excel_needs_no_mapping(tmp_path: Path) -> None:
    path = _source(
        tmp_path, "Image Path;Patient;Stain;MPP;Label\nimgs\\a.png;0012;HE;0,25;normal\n"
    )
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "a.png").write_bytes(b"")
    manifest = import_csv(path, ColumnMapping({}), PAPER)
    row = manifest.table.iloc[0]
    assert (row["patient_id"], row["stain"], row["mpp"], row["normal"]) == ("0012", "HE", 0.25, 1)
    assert manifest.image_paths()[0].is_file()


def test_a_column_of_classes_is_read_where_no_label_has_a_column(tmp_path: Path) -> None:
    path = _source(tmp_path, "path,Class\na.png,fsg\nb.png,\n")
    table = import_csv(path, ColumnMapping({}), PAPER).table
    assert table["fsg"].tolist() == [1, pd.NA]
    path = _source(tmp_path, "path,Class,normal\na.png,own,1\n")
    table = import_csv(path, ColumnMapping({}), PAPER).table
    assert (table["normal"].tolist(), table["Class"].tolist()) == ([1], ["own"])


def test_a_path_without_a_name_is_left_to_the_manifest_check(tmp_path: Path) -> None:
    path = _source(tmp_path, "image\n.\n")
    table = import_csv(path, ColumnMapping({"image_path": "image"}), PAPER).table
    assert table["image_id"].tolist() == ["."]


def test_a_patient_in_two_unicode_forms_is_one_patient(tmp_path: Path) -> None:
    composed = "Müller"
    parted = unicodedata.normalize("NFD", composed)
    text = f"file,who\na/1.png,{composed}\na/2.png,{parted}\na/3.png,8\n"
    columns = {"image_path": "file", "patient_id": "who"}
    mapping = ColumnMapping(columns=columns, values={("patient_id", "8"): parted})
    found = import_csv(_source(tmp_path, text), mapping, PAPER)
    assert set(found.table["patient_id"]) == {composed}
