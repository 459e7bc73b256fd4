import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.csv import parse_csv, render_csv
from glomerulab.slides.regions.parsing import load_text


def parse(folder):
    return list(parse_csv(load_text(folder / "r.csv")))


def test_a_region_may_be_a_box_alone(tmp_path):
    (tmp_path / "r.csv").write_text("x,y,width,height,labels\n10,20,30,40,cgn; fsg\n")
    (region,) = parse(tmp_path)
    assert region.box() == Box(10, 20, 30, 40)
    assert (region.region_id, region.labels, region.slide_id) == ("1", ("cgn", "fsg"), None)


def test_a_polygon_needs_no_box(tmp_path):
    (tmp_path / "r.csv").write_text('region_id,slide_id,polygon\ng,s,"0 0, 5 0, 0 5.5"\n')
    (region,) = parse(tmp_path)
    assert region == Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.5)), (), "s")


def test_a_row_longer_than_the_header_is_named(tmp_path):
    (tmp_path / "r.csv").write_text("x,y,width,height\n1,2,3,4,5\n")
    with pytest.raises(RegionError, match="line 2 has more fields"):
        parse(tmp_path)


def test_a_label_with_a_semicolon_cannot_be_written():
    region = Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0)), ("a;b",))
    with pytest.raises(RegionError, match="semicolon"):
        render_csv([region])


def test_excel_may_have_put_a_byte_order_mark_and_its_line_ends(tmp_path):
    text = "region_id,x,y,width,height\r\n肾小球 1,10,20,30,40\r\n"
    (tmp_path / "r.csv").write_bytes(text.encode("utf-8-sig"))
    (region,) = parse(tmp_path)
    assert (region.region_id, region.box()) == ("肾小球 1", Box(10, 20, 30, 40))


@pytest.mark.parametrize("cells", ["1,2,inf,4", "nan,2,3,4", "1,2,nan,4"])
def test_a_box_that_is_not_finite_makes_only_its_region_invalid(tmp_path, cells):
    (tmp_path / "r.csv").write_text(f"x,y,width,height\n{cells}\n1,2,3,4\n")
    invalid, valid = parse(tmp_path)
    assert valid.box() == Box(1, 2, 3, 4)
    assert (invalid.region_id, invalid.slide_id) == ("1", None)
    assert invalid.reason.startswith("line 2")
    assert "not finite" in invalid.reason


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1,2,3,4\n5,6,7\n", "line 3.*pair of numbers"),
        ('1,2,"3\n', "not valid CSV"),
    ],
)
def test_an_incomplete_row_is_named(tmp_path, rows, reason):
    (tmp_path / "r.csv").write_text(f"x,y,width,height\n{rows}")
    with pytest.raises(RegionError, match=reason):
        parse(tmp_path)
