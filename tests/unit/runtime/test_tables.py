"""Tables as people have them; oracles are the csv module and unicodedata."""

import csv
import io
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import ManifestError
from glomerulab.runtime.tables import TableSchema, parse_table, read_table, without_formulas

SCHEMA = TableSchema(
    "slides table",
    ("slide_path", "patient_id", "stain", "mpp"),
    required=("slide_path",),
    numbers=frozenset({"mpp"}),
    error=ManifestError,
)
TEXT = "slide_path,patient_id,mpp\na.tif,Müller,0.25\n"
ROW = {"slide_path": "a.tif", "patient_id": "Müller", "mpp": "0.25"}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_separator_encoding_and_line_ends_are_recognised(tmp_path, separator, encoding, ends):
    path = tmp_path / "slides.csv"
    path.write_bytes(TEXT.replace(",", separator).replace("\n", ends).encode(encoding))
    table = read_table(path, SCHEMA)
    assert table.rows == (ROW,)
    assert table.lines == (2,)


def test_a_table_of_chinese_excel_is_read(tmp_path, caplog):
    path = tmp_path / "slides.csv"
    path.write_bytes("slide_path,patient_id\na.tif,\u5f20\u4f1f\n".encode("gb18030"))
    assert read_table(path, SCHEMA).rows[0]["patient_id"] == "\u5f20\u4f1f"
    assert "gb18030" in caplog.text
    assert "\u5f20\u4f1f" in caplog.text


def test_an_encoding_that_is_not_unicode_is_named(tmp_path, caplog):
    path = tmp_path / "slides.csv"
    path.write_bytes(TEXT.encode("cp1252"))
    read_table(path, SCHEMA)
    assert "cp1252" in caplog.text
    assert "Müller" in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        "Slide_Path,Patient ID,MPP",
        "slide path , patient-id,mpp",
        "slidePath,patient,um per px",
        "path,Case ID,µm/px",
        "\u200bSLIDE_PATH,PATIENT,Pixel Size (um)",
        "ｐａｔｈ,PID,μm/px",
    ],
)
def test_spellings_of_the_header_are_recognised(header):
    table = parse_table(TEXT.replace("slide_path,patient_id,mpp", header), SCHEMA)
    assert table.rows == (ROW,)


def test_a_decimal_comma_is_a_point_where_the_separator_is_another():
    assert parse_table("slide_path;mpp;stain\na;0,25;1,5\n", SCHEMA).rows == (
        {"slide_path": "a", "mpp": "0.25", "stain": "1,5"},
    )


def test_the_separator_that_excel_states_is_taken_and_lines_count_as_in_an_editor():
    table = parse_table("sep=;\nslide_path;stain\na;x\n\n;;;\nb;y\n;;\n", SCHEMA)
    assert [row["slide_path"] for row in table.rows] == ["a", "b"]
    assert table.lines == (3, 6)


def test_blank_rows_and_nameless_empty_columns_are_left_out():
    table = parse_table("slide_path,stain,,\na,HE,,\n,,,\nb,PAS,,,,\n,,,\n", SCHEMA)
    assert table.columns == ("slide_path", "stain")
    assert [row["stain"] for row in table.rows] == ["HE", "PAS"]


def test_the_row_numbers_of_pandas_are_left_out(caplog):
    assert parse_table(",slide_path\n0,a\n1,b\n", SCHEMA).columns == ("slide_path",)
    assert not caplog.records


def test_a_data_frame_keeps_the_places_of_the_rows():
    frame = parse_table("slide_path\na\n\nb\n", SCHEMA).frame()
    assert frame["slide_path"].isna().tolist() == [False, True, False]


def test_an_exact_name_is_preferred_to_another_spelling(caplog):
    table = parse_table("slide_path,path,wsi\na,b,c\n", SCHEMA)
    assert table.rows[0]["slide_path"] == "a"
    assert table.others == ("path", "wsi")


def test_a_misspelt_column_is_named_with_what_was_meant(caplog):
    table = parse_table("slide_path,pateint_id,scanner\na,P1,S\n", SCHEMA, where="misspelt.csv")
    assert table.others == ("pateint_id", "scanner")
    assert "pateint_id" in caplog.text
    assert "patient_id" in caplog.text
    assert "scanner" not in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("patient;stain\nP1;HE\n", "slide_path.*'patient', 'stain'"),
        ("Slide Path,slide_path\na,b\n", "'Slide Path' and 'slide_path'"),
        ("slide_path,site,site\na,b,c\n", "'site'"),
        ("slide_path\na,0,25\n", "line 2"),
        ('slide_path\n"a\n', "CSV"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(text, words):
    with pytest.raises(ManifestError, match=words) as caught:
        parse_table(text, SCHEMA, where="slides.csv")
    assert caught.value.where == "slides.csv"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04\x14\x00\x06\x00\xff\xd8\x81\x8d")
    with pytest.raises(ManifestError, match="CSV UTF-8"):
        read_table(tmp_path / "a.csv", SCHEMA)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"])), min_size=1),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_every_cell_is_read_back_as_composed_text(cells, separator):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    writer.writerows([["slide_path", "stain"], *(["a", cell] for cell in cells)])
    read = [row["stain"] for row in parse_table(out.getvalue(), SCHEMA).rows]
    assert read == [unicodedata.normalize("NFC", cell.strip()) for cell in cells]


def test_a_table_for_people_runs_nothing_in_a_spreadsheet() -> None:
    table = pd.DataFrame({"id": ["=1+1", "a", None], "value": [-1.5, 2.0, np.nan], "n": [-1, 2, 3]})
    table["text"] = pd.array(["@x", "-y", pd.NA], dtype="string")
    told = without_formulas(table)
    assert told["id"].tolist()[:2] == ["'=1+1", "a"]
    assert told["id"].isna().tolist() == [False, False, True]
    assert told["text"].tolist()[:2] == ["'@x", "'-y"]
    assert told[["value", "n"]].equals(table[["value", "n"]])
    assert list(told.columns) == list(table.columns)
