import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import RegionError
from glomerulab.slides.regions.parsing import (
    format_number,
    load_json,
    load_text,
    load_xml,
    parse_point,
    split_labels,
)


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfx,y")
    assert load_text(tmp_path / "a.csv") == "x,y"


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("肾".encode("gbk"))
    with pytest.raises(RegionError, match="not UTF-8"):
        load_text(tmp_path / "a.csv")


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (3.0, "3"), (0.1, "0.1"), (-2.5, "-2.5")])
def test_numbers_are_written_without_a_needless_fraction(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("name", "labels"),
    [(None, ()), ("", ()), ("a", ("a",)), ("a: b", ("a", "b")), (" a :b: ", ("a", "b"))],
)
def test_joined_class_names_are_split(name, labels):
    assert split_labels(name) == labels


LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;">]><Annotations>&c;</Annotations>"""
OTHER_FILE = """<!DOCTYPE a [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<Annotations>&secret;</Annotations>"""


@pytest.mark.parametrize("attack", [LAUGHS, OTHER_FILE, "<!DOCTYPE a><Annotations/>"])
def test_an_xml_that_expands_or_reads_other_files_is_refused(tmp_path, attack):
    (tmp_path / "a.xml").write_text(attack)
    with pytest.raises(RegionError, match="are refused") as caught:
        load_xml(tmp_path / "a.xml")
    assert caught.value.where == str(tmp_path / "a.xml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "iso-8859-1"])
def test_an_xml_may_be_in_the_encoding_it_declares(tmp_path, encoding):
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?><Annotations Name="é"/>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert load_xml(tmp_path / "a.xml").get("Name") == "é"


@pytest.mark.parametrize("encoding", ["gbk", "klingon"])
def test_an_xml_in_an_unknown_encoding_is_a_region_error(tmp_path, encoding):
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><Annotations/>')
    with pytest.raises(RegionError, match="not valid XML"):
        load_xml(tmp_path / "a.xml")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{'a': 1}"])
def test_json_that_cannot_be_loaded_is_a_region_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RegionError, match="not valid JSON"):
        load_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", [10**400, None, "", [1], "0x10"])
def test_an_invalid_coordinate_is_rejected_with_its_feature(value):
    with pytest.raises(RegionError, match=r"feature 4.*pair of numbers"):
        parse_point(1, value, feature="feature 4")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_format_number_reads_back_equal(value):
    assert float(format_number(value)) == value
