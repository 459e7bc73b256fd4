"""The annotation program as people use it: Chromium, keys, a real server, a real slide."""

import json

import pytest

from glomerulab.apps.annotation.store.adjudications import adjudication_history
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.regions import list_regions
from tests.support.annotation_browser import (
    all_saved,
    drag,
    flags,
    label,
    shown,
    stored,
    violations,
)
from tests.support.annotation_server import Server
from tests.support.annotation_studies import PASSWORD, make_study
from tests.support.annotation_web import write_images

pytestmark = pytest.mark.browser

N_IMAGES = 20


@pytest.fixture
def server(tmp_path, request):
    folder = tmp_path / "study"
    folder.mkdir()
    slides = []
    if "real_data" in request.fixturenames:
        data = request.getfixturevalue("real_data")
        slides = ["--slides", str(data / "slides" / "CMU-1-Small-Region.svs")]
    with open_store(folder / "annotations.db", create=True) as store:
        make_study(store, manifest=write_images(folder, N_IMAGES))
    server = Server(folder / "annotations.db", *slides)
    yield server
    server.stop()


def _keys_of(place):
    """The keys pressed for an image: each single label, and two lesions at once."""
    return (("1",), ("2",), ("3",), ("4",), ("3", "4"))[place % 5]


@pytest.mark.real
def test_two_annotators_and_the_owner_from_log_in_to_export(server, open_page, real_data, tmp_path):
    anna = open_page("anna")
    for place in range(1, N_IMAGES + 1):
        label(anna, place, ("1",) if place == 3 else _keys_of(place))
        if place == 3:  # a mistake, undone from the next image
            shown(anna, 4)
            anna.keyboard.press("Backspace")
            label(anna, 3, ("4",))
    anna.wait_for_selector("#image-message:has-text('All images are done')")
    all_saved(anna)
    kept = stored(server, "anna")
    expected = {place: flags(_keys_of(place)) for place in range(1, N_IMAGES + 1)} | {
        3: flags(("4",))
    }
    assert {place: dict(one.content.labels) for place, one in kept.items()} == expected
    assert kept[3].version == 2
    assert all(0 < one.seconds < 60 for one in kept.values())

    _draw_boxes_on_the_slide(anna, server)

    bo = open_page("bo")
    for place in range(1, N_IMAGES + 1):
        label(bo, place, ("2",))
    bo.wait_for_selector("#image-message:has-text('All images are done')")
    all_saved(bo)

    owner = open_page("owner")
    owner.click("nav >> text=Disagreements")
    owner.click("tbody a >> nth=0")
    image_id = owner.inner_text("h1")
    owner.check("input[value=cgn]")
    owner.fill("#note", "seen together")
    owner.click("text=Settle and next")
    owner.wait_for_url(lambda url: "disagreement?image" in url and image_id not in url)
    with open_store(server.db) as store:
        (settled,) = adjudication_history(store, image_id, by="owner")
    assert dict(settled.labels) == flags(("4",))
    assert settled.note == "seen together"
    _export_is_what_was_clicked(owner, tmp_path, settled, kept)


def _draw_boxes_on_the_slide(page, server):
    page.click("text=Slides")
    page.click("text=CMU-1-Small-Region")
    page.wait_for_selector("#viewer[data-ready]")
    page.keyboard.press("b")
    area = page.locator("#viewer").bounding_box()
    for left, upper in ((380, 180), (480, 420), (440, 560)):
        drag(page, area, (left, upper), (left + 80, upper + 70))
        page.wait_for_timeout(250)
    page.keyboard.press("Escape")
    page.wait_for_selector("#count:has-text('3 shapes')")
    page.click("#box-list li:nth-child(3) button[aria-label]")
    page.wait_for_selector("#count:has-text('2 shapes')")
    all_saved(page)
    page.reload()
    page.wait_for_selector("#count:has-text('2 shapes')")
    with open_store(server.db) as store:
        drawn = list_regions(store, login="anna")
    # 752 screen pixels show the slide's 2967: every box is as large as it was dragged.
    factor = 2967 / area["height"]
    assert [(one.box.width, one.box.height) for one in drawn] == [
        (pytest.approx(80 * factor, abs=8), pytest.approx(70 * factor, abs=8))
    ] * 2


@pytest.mark.real
def test_a_box_drawn_before_the_first_timer_is_kept(server, open_page, real_data):
    # On a slow computer a press comes before the timers that fell due since the last one.
    page = open_page("anna")
    page.click("text=Slides")
    page.click("text=CMU-1-Small-Region")
    page.wait_for_selector("#viewer[data-ready]")
    page.keyboard.press("b")
    page.wait_for_selector("#draw[aria-pressed=true]")
    page.evaluate(DRAW_WITHOUT_TIMERS, [[380, 180], [480, 420], [440, 560]])
    page.wait_for_selector("#count:has-text('3 shapes')")
    all_saved(page)
    with open_store(server.db) as store:
        assert len(list_regions(store, login="anna")) == 3
    page.click("#box-list li:nth-child(2) .toggle")  # to look at one is to have drawn enough
    page.wait_for_selector("#box-list li:nth-child(2) .toggle[aria-pressed=true]")
    assert page.get_attribute("#draw", "aria-pressed") == "false"


# Promises are kept between two events of the browser; a timer is not.
DRAW_WITHOUT_TIMERS = """async (corners) => {
  const layer = document.querySelector("#viewer svg.a9s-annotationlayer");
  const area = layer.getBoundingClientRect();
  const strokes = [["down", 0, 0], ["move", 75, 65], ["move", 80, 70], ["up", 80, 70]];
  for (const [left, upper] of corners) {
    for (const [type, dx, dy] of strokes) {
      layer.dispatchEvent(new PointerEvent(`pointer${type}`, {
        bubbles: true, cancelable: true, isPrimary: true, pointerType: "mouse",
        clientX: area.left + left + dx, clientY: area.top + upper + dy,
      }));
      for (let kept = 0; kept < 50; kept += 1) await null;
    }
  }
}"""


def _export_is_what_was_clicked(owner, folder, settled, kept):
    owner.click("nav >> text=Export")
    with owner.expect_download() as download:
        owner.click("text=JSON of the paper")
    file = folder / "labels.json"
    download.value.save_as(file)
    rows = {row["image_name"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    names = {
        "normal": "正常肾小球",
        "fsg": "节段性硬化",
        "mspgn": "系膜细胞增生",
        "cgn": "新月体形成",
    }
    agreed = {
        one.image_id: dict(one.content.labels)
        for one in kept.values()
        if dict(one.content.labels) == flags(("2",))
    }
    for image_id, labels in {**agreed, settled.image_id: dict(settled.labels)}.items():
        row = rows[f"{image_id}.png"]
        assert {label: row[name] for label, name in names.items()} == labels


def test_a_server_crash_loses_no_label(server, open_page):
    page = open_page("anna")
    label(page, 1, ("2",))
    shown(page, 2)
    all_saved(page)
    server.kill()
    label(page, 2, ("3", "u"))
    page.wait_for_selector("#banner:has-text('kept in this browser')")
    assert "1 not saved yet" in page.inner_text("#save-state")
    server.start()
    all_saved(page)
    kept = stored(server, "anna")
    assert dict(kept[2].content.labels) == flags(("3",))
    assert kept[2].content.unsure
    assert kept[2].version == 1


def test_an_image_that_could_not_be_loaded_ahead_is_loaded_when_its_turn_comes(server, open_page):
    page = open_page("anna", refused="**/items/2/image*")
    with page.expect_event("requestfailed", lambda request: "/items/2/image" in request.url):
        page.reload()
    shown(page, 1)
    page.unroute("**/items/2/image*")
    label(page, 1, ("2",))
    shown(page, 2)
    assert page.locator("#image-message").is_hidden()  # it would name what could not be loaded
    all_saved(page)
    assert dict(stored(server, "anna")[1].content.labels) == flags(("2",))


def test_an_image_that_comes_late_is_shown_when_it_has_come(server, open_page):
    page = open_page("anna")
    waiting = []
    page.route("**/items/2/image*", lambda route: waiting.insert(0, route))
    page.reload()
    label(page, 1, ("2",))
    page.wait_for_selector("#image-message:has-text('Loading')")
    page.wait_for_selector("#viewer img", state="detached")  # image 1 cannot be taken for it
    waiting[0].continue_()
    shown(page, 2)
    assert page.locator("#image-message").is_hidden()
    label(page, 2, ("3",))
    all_saved(page)
    assert dict(stored(server, "anna")[2].content.labels) == flags(("3",))


def test_a_label_waiting_in_a_closed_page_is_sent_by_the_next(server, open_page):
    page = open_page("anna")
    shown(page, 1)
    server.kill()
    label(page, 1, ("4",))
    page.wait_for_selector("#banner:has-text('kept in this browser')")
    context = page.context
    page.close()
    server.start()
    page = context.new_page()
    page.goto(f"{server.address}/label")
    shown(page, 2)
    all_saved(page)
    assert dict(stored(server, "anna")[1].content.labels) == flags(("4",))


@pytest.mark.parametrize("end", ["cookies gone", "logged in anew in another tab"])
def test_an_expired_session_is_resumed_with_its_pending_changes(server, open_page, end):
    page = open_page("anna")
    shown(page, 1)
    page.context.clear_cookies()
    if end != "cookies gone":
        tab = page.context.new_page()
        tab.goto(f"{server.address}/login")
        tab.fill("#login", "anna")
        tab.fill("#password", PASSWORD)
        tab.keyboard.press("Enter")
        shown(tab, 1)
        tab.close()
    label(page, 1, ("2",))
    page.wait_for_selector("#login-dialog[open]")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#login-dialog:not([open])", state="attached")
    all_saved(page)
    label(page, 2, ("3",))
    shown(page, 3)
    all_saved(page)
    assert [one.version for one in stored(server, "anna").values() if one] == [1, 1]


def test_two_windows_do_not_overwrite_each_other(server, open_page):
    one = open_page("anna")
    shown(one, 1)
    other = one.context.new_page()
    other.goto(f"{server.address}/label")
    label(other, 1, ("4",))
    shown(other, 2)
    all_saved(other)
    label(one, 1, ("2",))
    one.wait_for_selector("#conflict-dialog[open]")
    assert "Crescent" in one.inner_text("#conflict-theirs")
    assert "Mesangial" in one.inner_text("#conflict-mine")
    assert dict(stored(server, "anna")[1].content.labels) == flags(("4",))
    one.click("#conflict-use")
    all_saved(one)
    kept = stored(server, "anna")[1]
    assert (kept.version, dict(kept.content.labels)) == (2, flags(("2",)))


def test_a_missing_image_is_reported_and_skipped_by_keys(server, open_page):
    with open_store(server.db) as store:
        second = list_items(store, "anna")[1].image_id
    (server.db.parent / "images" / f"{second}.png").unlink()
    page = open_page("anna")
    label(page, 1, ("2",))
    page.wait_for_selector("#image-message:has-text('cannot be shown')")
    page.keyboard.press("s")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shown(page, 3)
    all_saved(page)
    assert stored(server, "anna")[2].content.skip_reason == "no glomerulus"


def test_normal_and_a_lesion_replace_each_other_and_no_label_is_not_saved(server, open_page):
    page = open_page("anna")
    shown(page, 1)
    page.keyboard.press("Enter")
    assert "Set a label first" in page.inner_text("#hint")
    pressed = (
        "[...document.querySelectorAll('#labels button')]"
        ".map(button => button.getAttribute('aria-pressed') === 'true')"
    )
    page.keyboard.press("3")
    page.keyboard.press("4")
    assert page.evaluate(pressed) == [False, False, True, True]
    page.keyboard.press("1")
    assert page.evaluate(pressed) == [True, False, False, False]
    page.keyboard.press("2")
    assert page.evaluate(pressed) == [False, True, False, False]
    page.keyboard.press("n")
    page.keyboard.type("N2 and 1 in a note are letters")
    page.keyboard.press("Enter")
    page.wait_for_selector("#note-text:text-is('N2 and 1 in a note are letters')")
    assert page.evaluate(pressed) == [False, True, False, False]


PAGES = {
    "anna": ("/label", "/account", "/slides"),
    "owner": (
        "/study",
        "/study/people",
        "/study/disagreements",
        "/study/agreement",
        "/study/export",
    ),
}


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (820, 1180)])
def test_pages_meet_wcag_aa_and_fit_the_screen(server, open_page, width, height):
    for login, paths in PAGES.items():
        page = open_page(login, width=width, height=height, touch=width < 1000)
        for path in paths:
            page.goto(server.address + path)
            if path == "/label":
                shown(page, 1)
            assert violations(page) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.context.clear_cookies()
    page.goto(f"{server.address}/login")
    assert violations(page) == []


def test_touch_input_does_all_that_keys_do(server, open_page):
    page = open_page("anna", width=820, height=1180, touch=True)
    shown(page, 1)
    page.tap("#labels button:nth-of-type(3)")
    page.tap("#unsure")
    page.tap("#save")
    shown(page, 2)
    page.tap("#back")
    shown(page, 1)
    page.tap("#unsure")
    page.tap("#save")
    shown(page, 2)
    page.tap("#skip")
    page.tap("#skip-dialog label >> nth=0")
    page.tap("#skip-dialog button[value=skip]")
    shown(page, 3)
    all_saved(page)
    kept = stored(server, "anna")
    assert (kept[1].version, kept[1].content.unsure) == (2, False)
    assert kept[2].content.skip_reason == "out of focus"
    sides = page.evaluate(
        "[...document.querySelectorAll('.panel button, .zoom button')]"
        ".map(button => button.getBoundingClientRect()).filter(box => box.width)"
        ".map(box => Math.min(box.width, box.height))"
    )
    assert min(sides) >= 44


def test_the_page_in_chinese(server, open_page):
    page = open_page("anna")
    page.click("text=中文")
    shown(page, 1)
    assert "保存并继续" in page.inner_text("#save")
    assert "系膜细胞增生" in page.inner_text("#labels")
    assert page.get_attribute("html", "lang") == "zh-Hans"
