import pytest

from glomerulab.errors import RegionError
from glomerulab.slides.region_text import load_text, make_region, shown_number, split_labels


def test_a_closed_ring_is_opened(tmp_path):
    ring = [(0.0, 0.0), (4.0, 0.0), (0.0, 4.0), (0.0, 0.0)]
    region = make_region("g", ring, path=tmp_path, feature="feature 1")
    assert region.polygon == ((0.0, 0.0), (4.0, 0.0), (0.0, 4.0))


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfx,y")
    assert load_text(tmp_path / "a.csv") == "x,y"


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("肾".encode("gbk"))
    with pytest.raises(RegionError, match="not UTF-8"):
        load_text(tmp_path / "a.csv")


@pytest.mark.parametrize(("value", "shown"), [(3, "3"), (3.0, "3"), (0.1, "0.1"), (-2.5, "-2.5")])
def test_numbers_are_shown_without_a_needless_fraction(value, shown):
    assert shown_number(value) == shown


@pytest.mark.parametrize(
    ("name", "labels"),
    [(None, ()), ("", ()), ("a", ("a",)), ("a: b", ("a", "b")), (" a :b: ", ("a", "b"))],
)
def test_joined_class_names_are_taken_apart(name, labels):
    assert split_labels(name) == labels
