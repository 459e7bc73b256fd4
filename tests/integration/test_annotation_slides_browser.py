"""Boxes on slides as people draw them: Chromium, a real server, a written slide."""

import math
import time

import pytest
from shapely import Polygon

from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.regions import RegionInput, list_regions, save_region
from glomerulab.geometry import Box, Region
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from tests.conftest import smooth_noise
from tests.support.annotation_browser import all_saved, drag, violations
from tests.support.annotation_server import Server
from tests.support.annotation_studies import make_study
from tests.support.annotation_web import write_images

pytestmark = pytest.mark.browser

SLIDES = ("turned", "undone", "looked-at", "cut", "polygons", "mended", "proposals")
SLIDES += ("holes", "split", "fingers", "meanwhile")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with one slide for each test; Bo has drawn a box on every one."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "slides").mkdir()
    for number, name in enumerate(SLIDES):
        pixels = smooth_noise(900, 1200, seed=number)
        write_pyramid(pixels, folder / "slides" / f"{name}.tiff", mpp=1.0, compression="deflate")
    with open_store(folder / "annotations.db", create=True) as store:
        make_study(store, manifest=write_images(folder, 2), show_others=True)
        for name in SLIDES:
            box = RegionInput(f"of-bo-{name}", name, Box(150, 150, 120, 100), 0, f"key of {name}")
            save_region(store, box, login="bo")
    server = Server(folder / "annotations.db", "--slides", folder / "slides")
    yield server
    server.stop()


def _open_slide(page, name):
    page.click("text=Slides")
    page.click(f".cards a:has-text('{name}')")
    page.wait_for_selector("#viewer[data-ready]")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180), (1366, 768), (1920, 1080)])
def test_the_page_of_a_slide_fits_the_screen(open_page, width, height):
    page = open_page("owner", width=width, height=height)
    _open_slide(page, SLIDES[0])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    panel, picture = (page.locator(one).bounding_box() for one in (".panel", ".image-area"))
    if width > 900:
        assert panel["x"] >= picture["x"] + picture["width"]
    else:
        assert (panel["width"], panel["y"]) == (width, picture["y"] + picture["height"])
    assert violations(page) == []


def _boxes(server, slide, login="anna"):
    with open_store(server.db) as store:
        drawn = list_regions(store, login=login, slide_id=slide)
    return [one for one in drawn if one.login == login]


def _draw_one(page, start=(400, 250), end=(520, 350)):
    page.keyboard.press("b")
    area = page.locator("#viewer").bounding_box()
    drag(page, area, start, end)
    page.wait_for_selector("#count:has-text('2 shapes')")
    page.keyboard.press("Escape")
    all_saved(page)


def _changed(server, page, before):
    """Return a shape when it has another version; events of the annotator come by a timer."""
    for _ in range(100):
        for now in _boxes(server, before.slide_id):
            if now.region_id == before.region_id and now.version > before.version:
                return now
        page.wait_for_timeout(100)
    raise AssertionError(f"{before} was not changed")


def _press(page, *points, double=False):
    """Click points one after the other; a double click at the last closes a polygon.

    The events bring their times: on a busy machine a press would last longer than a click.
    """
    area = page.locator("#viewer").bounding_box()
    devtools = page.context.new_cdp_session(page)
    for number, (across, down) in enumerate(points, start=1):
        x, y = area["x"] + across, area["y"] + down
        page.mouse.move(x, y, steps=3)
        now = time.time()
        is_last = double and number == len(points)
        for count in (1, 2) if is_last else (1,):
            for kind, later in (("mousePressed", 0.0), ("mouseReleased", 0.02)):
                event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": count}
                moment = {"timestamp": now + 0.1 * (count - 1) + later}
                devtools.send("Input.dispatchMouseEvent", event | moment)
        page.wait_for_timeout(350)  # two quick clicks are a double click
    devtools.detach()


def _own_line(page):
    return page.locator("#box-list li", has=page.locator("button[aria-label]"))


def test_a_turned_box_stays_turned_and_its_size_is_its_own(server, open_page):
    page = open_page("anna")
    _open_slide(page, "turned")
    _draw_one(page)
    (before,) = _boxes(server, "turned")
    _own_line(page).locator(".toggle").click()
    handle = page.locator(".a9s-rotation-handle").last
    handle.wait_for()
    page.wait_for_timeout(600)  # the slide is still moving to the box
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 60, steps=8)
    page.mouse.up()
    size = f"{before.box.width} × {before.box.height}"
    page.wait_for_selector(f"#box-list li:has-text('{size} · turned')")
    all_saved(page)
    (turned,) = _boxes(server, "turned")
    assert turned.outline != turned.box.corners()
    assert turned.box.width > before.box.width + 10
    page.reload()
    page.wait_for_selector(f"#box-list li:has-text('{size} · turned')")
    page.keyboard.press("Control+z")  # there is nothing to undo on a new page
    assert len(_boxes(server, "turned")) == 1


def test_undo_brings_back_a_deleted_box_and_takes_away_a_drawn_one(server, open_page):
    page = open_page("anna")
    _open_slide(page, "undone")
    _draw_one(page)
    (drawn,) = _boxes(server, "undone")
    _own_line(page).locator("button[aria-label]").click()
    page.wait_for_selector("#count:has-text('1 shapes')")
    all_saved(page)
    assert _boxes(server, "undone") == []
    page.keyboard.press("Control+z")
    page.wait_for_selector("#count:has-text('2 shapes')")
    all_saved(page)
    (again,) = _boxes(server, "undone")
    assert (again.region_id, again.box) == (drawn.region_id, drawn.box)
    page.click("#undo")
    page.wait_for_selector("#count:has-text('1 shapes')")
    all_saved(page)
    assert _boxes(server, "undone") == []
    assert page.is_disabled("#undo")


def test_a_box_of_someone_else_is_looked_at_and_not_changed(server, open_page):
    page = open_page("anna")
    _open_slide(page, "looked-at")
    page.wait_for_selector("#others-note:has-text('your own shapes')")
    page.click("#box-list .toggle")
    page.wait_for_selector("#selected-note:has-text('bo drew this shape')")
    page.keyboard.press("Delete")
    assert page.locator("#box-list button[aria-label]").count() == 0
    assert [one.version for one in _boxes(server, "looked-at", "bo")] == [1]


def test_cutting_asks_and_tells_that_the_slide_is_coarser(server, open_page):
    page = open_page("owner")
    _open_slide(page, "cut")
    page.click("#cut")
    text = page.inner_text("#cut-dialog")
    assert "1 glomeruli become images of 0.5 µm per pixel" in text
    assert "The slide has 1 µm per pixel" in text
    assert violations(page) == []
    page.click("#cut-dialog >> text=Cancel")
    with open_store(server.db) as store:
        assert len(list_items(store, "anna")) == 2
    page.click("#cut")
    page.click("#cut-confirm button")
    page.wait_for_selector(".notice:has-text('1 new images handed out')")
    with open_store(server.db) as store:
        assert len(list_items(store, "anna")) == 3
    page.wait_for_selector("#box-list:has-text('handed out')")
    page.reload()  # what was done once is not told again
    page.wait_for_selector("#box-list:has-text('handed out')")
    assert page.locator(".notice").count() == 0
    page.click("#cut")
    assert "handed out already" in page.inner_text("#cut-dialog")
    assert page.locator("#cut-confirm").is_hidden()


def test_a_polygon_is_drawn_corrected_classed_and_deleted(server, open_page):
    page = open_page("anna")
    _open_slide(page, "polygons")
    page.keyboard.press("4")
    page.keyboard.press("p")
    _press(page, (300, 300), (460, 310), (480, 450), (380, 500), (290, 420), double=True)
    page.wait_for_selector("#count:has-text('2 shapes')")
    page.keyboard.press("Escape")
    all_saved(page)
    (drawn,) = _boxes(server, "polygons")
    assert len(drawn.outline) == 5
    assert drawn.labels == ("medulla",)

    _own_line(page).locator(".toggle").click()
    page.wait_for_timeout(900)  # the slide is still moving to the shape
    assert violations(page) == []
    handle = page.locator(".a9s-handle").first
    place = handle.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 30, steps=8)
    page.mouse.up()
    moved = _changed(server, page, drawn)
    assert moved.outline[1:] == drawn.outline[1:]
    assert moved.outline[0][0] < drawn.outline[0][0] - 5
    page.locator(".a9s-handle").nth(3).click()
    page.keyboard.press("Delete")
    cornered = _changed(server, page, moved)
    assert cornered.outline == (*moved.outline[:3], *moved.outline[4:])

    page.keyboard.press("1")
    classed = _changed(server, page, cornered)
    assert classed.labels == ("glomerulus",)
    page.keyboard.press("Control+z")
    assert _changed(server, page, classed).labels == ("medulla",)
    page.reload()
    page.wait_for_selector("#box-list li:has-text('Medulla')")
    _own_line(page).locator("button[aria-label]").click()
    page.wait_for_selector("#count:has-text('1 shapes')")
    all_saved(page)
    assert _boxes(server, "polygons") == []


def test_an_outline_that_crosses_itself_is_mended_or_refused_and_told(server, open_page):
    page = open_page("anna")
    _open_slide(page, "mended")
    page.keyboard.press("p")
    _press(page, (300, 250), (500, 450), (500, 250), (300, 390), double=True)
    page.wait_for_selector("#banner:has-text('crosses itself and bounds 2 areas')")
    assert _boxes(server, "mended") == []
    _press(
        page, (300, 250), (500, 250), (500, 450), (300, 450), (360, 330), (360, 400), double=True
    )
    page.wait_for_selector("#banner:has-text('was mended')")
    all_saved(page)
    (mended,) = _boxes(server, "mended")
    assert Polygon(mended.outline).is_valid


def test_proposals_are_accepted_corrected_and_exported_with_holes(server, open_page, tmp_path):
    ring = ((300.0, 300.0), (500.0, 300.0), (500.0, 500.0), (300.0, 500.0))
    hole = ((350.0, 350.0), (450.0, 350.0), (400.0, 450.0))
    proposed = [
        Region("p1", ring, (PROPOSAL_LABEL,)),
        Region(
            "t1",
            tuple((x + 400, y) for x, y in ring),
            ("Tubule",),
            holes=(tuple((x + 400, y) for x, y in hole),),
        ),
    ]
    write_regions(proposed, tmp_path / "proposed.geojson")
    page = open_page("anna")
    _open_slide(page, "proposals")
    page.set_input_files("#file", tmp_path / "proposed.geojson")
    page.wait_for_selector("#box-list li:has-text('proposed')")
    page.wait_for_selector("#viewer[data-ready]")
    page.keyboard.press("a")  # shows the first
    page.wait_for_selector("#box-list [aria-pressed=true]:has-text('proposed')")
    page.keyboard.press("a")
    page.wait_for_selector("#accept", state="hidden")
    page.keyboard.press("Control+z")  # nobody has looked at it, after all
    page.wait_for_selector("#accept-count:has-text('1 proposals')")
    all_saved(page)
    assert [one.labels for one in _boxes(server, "proposals")].count((PROPOSAL_LABEL,)) == 1
    page.keyboard.press("n")
    page.wait_for_selector("#box-list [aria-pressed=true]:has-text('proposed')")
    page.keyboard.press("a")
    page.wait_for_selector("#accept", state="hidden")
    all_saved(page)
    assert page.locator("#box-list li:has-text('Glomerulus proposal')").count() == 0
    (tubule,) = (one for one in _boxes(server, "proposals") if one.holes)
    page.locator("#box-list li:has-text('Tubule') .toggle").click()
    page.wait_for_timeout(900)
    handle = page.locator(".a9s-handle").last  # a corner of the hole
    place = handle.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] + 30, place["y"] - 30, steps=8)
    page.mouse.up()
    _changed(server, page, tubule)
    with page.expect_download() as download:
        page.click("text=Save shapes as GeoJSON")
    download.value.save_as(tmp_path / "out.geojson")
    regions = {one.labels: one for one in read_regions(tmp_path / "out.geojson")}
    accepted, corrected = regions[()], regions["Tubule",]
    assert accepted.polygon == ring
    assert corrected.polygon == proposed[1].polygon
    assert len(corrected.holes) == 1
    assert corrected.holes != proposed[1].holes


def _stroke(page, *points):
    """Drag along points of the page's slide."""
    area = page.locator("#viewer").bounding_box()
    (x, y), *others = [(area["x"] + across, area["y"] + down) for across, down in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


def _loop(x, y, radius):
    turns = [2 * math.pi * n / 24 for n in range(25)]
    return [(x + radius * math.cos(one), y + radius * math.sin(one)) for one in turns]


def _draw_polygon(page, *points, n_shapes):
    page.keyboard.press("p")
    _press(page, *points, double=True)
    page.wait_for_selector(f"#count:has-text('{n_shapes} shapes')")
    page.keyboard.press("Escape")
    all_saved(page)


def test_a_hole_is_cut_out_of_a_polygon_exported_and_taken_back(server, open_page, tmp_path):
    page = open_page("anna")
    _open_slide(page, "holes")
    _draw_polygon(page, (300, 250), (560, 250), (560, 500), (300, 500), n_shapes=2)
    (drawn,) = _boxes(server, "holes")
    page.click("#cut-out")
    page.wait_for_selector("#hint:has-text('Click the shape to cut')")
    _press(page, (330, 280))
    page.wait_for_selector("#hint:has-text('Draw a loop')")
    assert violations(page) == []
    _stroke(page, *_loop(430, 375, 60))
    holed = _changed(server, page, drawn)
    (hole,) = holed.holes
    assert Polygon(holed.outline).equals(Polygon(drawn.outline))
    assert Polygon(drawn.outline).contains(Polygon(hole))
    page.wait_for_selector("#cut-out[aria-pressed=false]")

    page.keyboard.press("x")  # the shape is still selected; now a part of its border
    _stroke(page, *_loop(560, 375, 40))
    bitten = _changed(server, page, holed)
    assert [Polygon(one).area for one in bitten.holes] == pytest.approx([Polygon(hole).area])
    assert Polygon(bitten.outline).area < 0.98 * Polygon(holed.outline).area
    page.keyboard.press("Control+z")
    again = _changed(server, page, bitten)
    assert (again.outline, again.holes) == (holed.outline, holed.holes)
    page.reload()
    page.wait_for_selector("#box-list li:has-text('outline')")
    with page.expect_download() as download:
        page.click("text=Save shapes as GeoJSON")
    download.value.save_as(tmp_path / "out.geojson")
    (read,) = (one for one in read_regions(tmp_path / "out.geojson") if one.holes)
    assert read.holes == holed.holes


def test_an_outline_of_two_is_split_by_a_line_and_joined_again(server, open_page):
    page = open_page("anna")
    _open_slide(page, "split")
    page.keyboard.press("2")
    _draw_polygon(page, (300, 300), (640, 300), (640, 460), (300, 460), n_shapes=2)
    (drawn,) = _boxes(server, "split")
    _own_line(page).locator(".toggle").click()
    page.wait_for_timeout(900)  # the slide is still moving to the shape
    area = page.locator("#viewer").bounding_box()
    across = area["width"] / 2 + 60
    page.keyboard.press("x")
    _stroke(page, (across, 10), (across + 15, area["height"] / 2), (across, area["height"] - 10))
    page.wait_for_selector("#count:has-text('3 shapes')")
    all_saved(page)
    larger, smaller = sorted(_boxes(server, "split"), key=lambda one: -Polygon(one.outline).area)
    assert larger.region_id == drawn.region_id
    assert larger.labels == smaller.labels == drawn.labels
    areas = [Polygon(one.outline).area for one in (larger, smaller)]
    assert sum(areas) == pytest.approx(Polygon(drawn.outline).area, rel=1e-3)

    page.keyboard.press("Control+z")  # one step
    page.wait_for_selector("#count:has-text('2 shapes')")
    all_saved(page)
    (whole,) = _boxes(server, "split")
    assert whole.outline == drawn.outline

    page.keyboard.press("x")
    _press(page, (area["width"] / 2 - 60, area["height"] / 2))
    _stroke(page, (across, 10), (across, area["height"] - 10))
    page.wait_for_selector("#count:has-text('3 shapes')")
    page.keyboard.press("j")
    page.wait_for_selector("#hint:has-text('join to the marked one')")
    _press(page, (across + 40, area["height"] / 2))
    page.wait_for_selector("#count:has-text('2 shapes')")
    all_saved(page)
    (joined,) = _boxes(server, "split")
    assert Polygon(joined.outline).symmetric_difference(Polygon(drawn.outline)).area < 50

    page.keyboard.press("j")  # that of Bo lies apart, and is not anna's
    page.locator("#box-list .toggle").first.click()
    page.wait_for_selector("#banner:has-text('bo drew this shape')")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    _press(page, (area["width"] / 2, area["height"] / 2))
    _stroke(page, (across, 200), (across + 30, 260))
    page.wait_for_selector("#banner:has-text('nothing was cut')")


def test_a_shape_that_changes_during_a_cut_is_told_and_stays_as_it_is(server, open_page):
    page = open_page("anna")
    _open_slide(page, "meanwhile")
    _draw_one(page, (300, 250), (520, 450))
    held = []

    def hold(route):
        held.append(route)

    page.route("**/api/shapes", hold)
    page.keyboard.press("x")
    _press(page, (330, 280))
    with page.expect_request("**/api/shapes"):
        _stroke(page, *_loop(410, 350, 50))
    _own_line(page).locator("button[aria-label]").click()
    page.wait_for_selector("#count:has-text('1 shapes')")
    held[0].continue_()
    page.wait_for_selector("#banner:has-text('changed in the meantime')")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#count:has-text('2 shapes')")
    page.click("#banner button")

    page.keyboard.press("x")
    _press(page, (330, 280))
    _own_line(page).locator("button[aria-label]").click()  # before the stroke
    page.wait_for_selector("#count:has-text('1 shapes')")
    _stroke(page, *_loop(410, 350, 50))
    page.wait_for_selector("#banner:has-text('changed in the meantime')")
    assert len(held) == 1
    page.keyboard.press("Control+z")
    all_saved(page)
    (again,) = _boxes(server, "meanwhile")
    assert again.holes == ()


def test_a_finger_cuts_a_hole(server, open_page):
    page = open_page("anna", width=820, height=1180, touch=True)
    _open_slide(page, "fingers")
    _draw_one(page, (300, 150), (520, 350))
    (drawn,) = _boxes(server, "fingers")
    page.tap("#cut-out")
    area = page.locator("#viewer").bounding_box()
    page.touchscreen.tap(area["x"] + 330, area["y"] + 180)
    page.wait_for_selector("#hint:has-text('Draw a loop')")
    devtools = page.context.new_cdp_session(page)
    points = [{"x": area["x"] + x, "y": area["y"] + y} for x, y in _loop(410, 250, 50)]
    for kind, moved in (("touchStart", points[:1]), ("touchMove", points[1:])):
        for one in moved:
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [one]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    holed = _changed(server, page, drawn)
    assert len(holed.holes) == 1
