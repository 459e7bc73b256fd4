import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.csv import parse_csv, render_csv
from glomerulab.slides.regions.parsing import InvalidRegion, load_text
from tests.support.region_files import regions_of, select


def parse(folder):
    return regions_of(parse_csv(load_text(folder / "r.csv", is_table=True)))


def test_a_region_may_be_a_box_alone(tmp_path):
    (tmp_path / "r.csv").write_text("x,y,width,height,labels\n10,20,30,40,cgn; fsg\n")
    (region,) = parse(tmp_path)
    assert region.box() == Box(10, 20, 30, 40)
    assert (region.region_id, region.labels, region.slide_id) == ("1", ("cgn", "fsg"), None)


def test_a_polygon_needs_no_box(tmp_path):
    (tmp_path / "r.csv").write_text('region_id,slide_id,polygon\ng,s,"0 0, 5 0, 0 5.5"\n')
    (region,) = parse(tmp_path)
    assert region == Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.5)), (), "s")


@pytest.mark.parametrize(
    "bad", ["1,2,3,4,5,6", "5,6,7", "1,2,0,4", "1,2,3,-4", "1,x,3,4", "1,2,inf,4", "nan,2,3,4"]
)
def test_a_bad_row_is_named_and_its_neighbours_are_read(tmp_path, bad):
    (tmp_path / "r.csv").write_text(f"x,y,width,height\n1,2,3,4\n{bad}\n5,6,7,8\n")
    first, last, failed = parse(tmp_path)
    assert (first.box(), last.box()) == (Box(1, 2, 3, 4), Box(5, 6, 7, 8))
    assert isinstance(failed, InvalidRegion)
    assert failed.region_id == "2"
    assert failed.reason.startswith("line 3")


def test_blank_rows_are_skipped_with_a_note(tmp_path):
    (tmp_path / "r.csv").write_text("region_id,x,y,width,height\ng1,1,2,3,4\n,,,,\n\n")
    found = select(parse_csv(load_text(tmp_path / "r.csv")))
    assert [one.region_id for one in found.regions] == ["g1"]
    assert not found.invalid
    assert "line 3" in found.notes[0].en


@pytest.mark.parametrize(
    "header", ["label", "labels", "Class", "CLASSES", "classification", " Label "]
)
def test_the_labels_are_found_in_a_column_of_any_usual_name(tmp_path, header):
    (tmp_path / "r.csv").write_text(f"ID,X,Y,Width,Height,{header}\ng1,1,2,3,4,cgn; fsg\n")
    (region,) = parse(tmp_path)
    assert (region.region_id, region.labels) == ("g1", ("cgn", "fsg"))


def test_a_column_that_is_not_read_is_named(caplog):
    (region,) = regions_of(parse_csv("x,y,width,height,diagnosis\n1,2,3,4,a\n"))
    assert region.labels == ()
    assert "diagnosis" in caplog.text


@pytest.mark.parametrize(
    "text", ["x;y;width;height\n1,5;2;3;4\n", "x\ty\twidth\theight\n1.5\t2\t3\t4\n"]
)
def test_the_separator_is_recognised(text):
    (region,) = regions_of(parse_csv(text))
    assert region.polygon[0] == (1.5, 2.0)


def test_a_box_may_be_turned_about_its_centre():
    text = "x,y,width,height,rotation\n400,560,400,60,90\n"
    (region,) = regions_of(parse_csv(text))
    assert region.box() == Box(570, 390, 60, 400)


def test_a_label_with_a_semicolon_cannot_be_written():
    region = Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0)), ("a;b",))
    with pytest.raises(RegionError, match="semicolon"):
        render_csv([region])


def test_excel_may_have_put_a_byte_order_mark_and_its_line_ends(tmp_path):
    text = "region_id,x,y,width,height\r\n肾小球 1,10,20,30,40\r\n"
    (tmp_path / "r.csv").write_bytes(text.encode("utf-8-sig"))
    (region,) = parse(tmp_path)
    assert (region.region_id, region.box()) == ("肾小球 1", Box(10, 20, 30, 40))


def test_a_quote_that_is_never_closed_is_refused():
    with pytest.raises(RegionError, match="not valid CSV"):
        list(parse_csv('x,y,width,height\n1,2,"3\n'))
