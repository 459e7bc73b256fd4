"""Labelling in bad networks, with the mouse, in two tabs, and looking through what was labelled."""

import shutil

import pytest

from glomerulab.apps.annotation.store.database import open_store
from tests.support.annotation_browser import all_saved, flags, label, shown, stored, violations
from tests.support.annotation_server import Server
from tests.support.annotation_studies import make_study
from tests.support.annotation_web import write_images

pytestmark = pytest.mark.browser

N_IMAGES = 13
READERS = ("reviews", "clicks", "offline")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with one annotator for each test."""
    folder = tmp_path_factory.mktemp("study")
    with open_store(folder / "annotations.db", create=True) as store:
        images = write_images(folder, N_IMAGES)
        make_study(store, manifest=images, annotators=READERS, n_readers=len(READERS))
    (folder / "references").mkdir()
    shutil.copy(folder / "images" / "glom_000.png", folder / "references" / "cgn.png")
    server = Server(folder / "annotations.db")
    yield server
    server.stop()


def test_the_own_labels_are_looked_through_and_enter_without_a_change_stores_nothing(
    server, open_page
):
    page = open_page("reviews")
    for place in range(1, N_IMAGES + 1):
        label(page, place, (str(1 + place % 4), "u") if place in {4, 8} else (str(1 + place % 4),))
    page.wait_for_selector(".tally li:text-is('Unsure: 2')")
    assert "Crescent: 3" in page.inner_text(".tally")
    assert violations(page) == []
    all_saved(page)
    page.click("#image-message >> text=Review my labels")
    page.click(".filters >> text=Normal")
    assert page.locator(".thumbnails li").count() == 3
    assert violations(page) == []
    page.click(".thumbnails li:nth-child(2)")
    shown(page, 8)
    assert page.get_attribute("#labels button:nth-of-type(1)", "aria-pressed") == "true"
    page.keyboard.press(",")
    shown(page, 4)
    page.keyboard.press("Enter")  # nothing changed
    shown(page, 8)
    page.keyboard.press("3")
    page.keyboard.press(".")  # forward without saving: what was entered waits
    shown(page, 12)
    page.keyboard.press("Backspace")
    shown(page, 8)
    assert page.get_attribute("#labels button:nth-of-type(3)", "aria-pressed") == "true"
    page.keyboard.press("Enter")
    shown(page, 12)
    page.keyboard.press("Enter")
    page.wait_for_selector("#image-message:has-text('last of the 3 images')")
    all_saved(page)
    kept = stored(server, "reviews")
    assert [place for place, one in kept.items() if one.version != 1] == [8]
    assert dict(kept[8].content.labels) == flags(("3",))


def test_after_clicks_the_keys_act_on_the_image_and_no_reason_is_stored_by_habit(server, open_page):
    page = open_page("clicks")
    shown(page, 1)
    page.keyboard.press("2")
    page.click(".viewer-bar button[aria-keyshortcuts='+']")
    page.click(".viewer-bar button[aria-keyshortcuts='0']")
    page.keyboard.press("d")
    page.wait_for_selector(".guide img[alt='Crescent']")
    assert "Crescent" in page.inner_text(".guide")
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    shown(page, 2)
    page.keyboard.press("s")
    page.keyboard.press("Enter")  # no reason yet
    page.wait_for_selector("#skip-dialog[open]")
    assert page.locator("#skip-dialog input:checked").count() == 0
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    shown(page, 3)
    all_saved(page)
    kept = stored(server, "clicks")
    assert (kept[1].version, kept[2].content.skip_reason) == (1, "cut off")

    other = page.context.new_page()
    other.goto(f"{server.address}/label")
    label(other, 3, ("4",))
    shown(other, 4)
    all_saved(other)
    label(page, 3, ("2",))
    page.wait_for_selector("#conflict-dialog[open]")
    picture = "document.getElementById('conflict-image')"
    page.wait_for_timeout(300)
    assert page.evaluate(f"{picture}.naturalWidth") == 96
    assert f"/items/{kept[1].assignment_id}/" not in page.evaluate(f"{picture}.src")
    assert violations(page) == []
    page.click("#conflict-keep")


def test_ten_images_are_loaded_ahead_and_no_key_counts_without_a_picture(server, open_page):
    loaded = set()
    page = open_page("offline")
    page.on("response", lambda one: loaded.add(one.url) if "/image?v=" in one.url else None)
    page.reload()
    shown(page, 1)
    while len(loaded) < 11:
        page.wait_for_timeout(50)
    page.wait_for_timeout(200)
    server.kill()
    label(page, 1, ("2",))
    page.wait_for_selector("#banner:has-text('9 more images are loaded')")
    for place in range(2, 12):
        label(page, place, ("3",))
    page.wait_for_selector("#image-message:has-text('appears by itself')")
    for key in ("2", "Enter", "u", "s", "n", "Enter"):
        page.keyboard.press(key)
    assert page.locator("dialog[open]").count() == 0
    assert page.is_disabled("#save")
    assert page.inner_text("#save-state") == "11 not saved yet"
    server.start()
    shown(page, 12)
    assert page.locator("#image-message").is_hidden()
    all_saved(page)
    assert page.locator("#banner").is_hidden()
    kept = stored(server, "offline")
    assert [one and one.version for one in kept.values()] == [1] * 11 + [None, None]
    assert dict(kept[11].content.labels) == flags(("3",))
    label(page, 12, ("4",))
    shown(page, 13)
    all_saved(page)
