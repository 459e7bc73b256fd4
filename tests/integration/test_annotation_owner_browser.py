"""Pages of owner and adjudicator: what an action made false goes, and all fit a telephone."""

from contextlib import contextmanager
from urllib.parse import quote

import pytest

from glomerulab.apps.annotation.store.adjudications import adjudication_history
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.database import open_store
from tests.support.annotation_browser import Sessions, violations
from tests.support.annotation_server import Server
from tests.support.annotation_studies import (
    CRESCENT,
    NORMAL,
    SCLEROSIS,
    add_account,
    make_study,
    save,
)
from tests.support.annotation_web import write_images

pytestmark = pytest.mark.browser

READERS = ("anna", "bo", "carla")


@contextmanager
def _serving(folder, *, handed_out):
    """Serve a study of three readers."""
    with open_store(folder / "annotations.db", create=True) as store:
        images = write_images(folder, 6)
        make_study(store, manifest=images, annotators=READERS, n_readers=3, distributed=handed_out)
        add_account(store, "chen", role="adjudicator")
    server = Server(folder / "annotations.db")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def new_study(browser, tmp_path):
    """A study whose images are not handed out yet, and its owner's page."""
    with _serving(tmp_path, handed_out=False) as server:
        sessions = Sessions(browser, server)
        yield server, sessions.open("owner")
        sessions.close()
        assert sessions.serious_problems() == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A study whose readers have begun, and differ."""
    with _serving(tmp_path_factory.mktemp("study"), handed_out=True) as server:
        _differ(server)
        yield server


def _differ(server):
    """Give a majority for glom_000, none for glom_001, and one skip of glom_002."""
    readings = {
        "glom_000": (CRESCENT, CRESCENT, NORMAL),
        "glom_001": (CRESCENT, SCLEROSIS, NORMAL),
    }
    with open_store(server.db) as store:
        for image_id, labels in readings.items():
            for login, one in zip(READERS, labels, strict=True):
                save(store, login, image_id, one)
        save(store, "anna", "glom_002", skip_reason="out of focus")


def test_text_that_an_action_made_false_leaves_the_page(new_study):
    server, page = new_study
    page.wait_for_selector("#progress:has-text('Nothing is handed out yet')")
    page.fill("#n_readers", "9")
    page.click("text=Save the design")
    page.wait_for_selector("#design-result:has-text('saved')")
    page.click("text=Hand out images")
    page.wait_for_selector("#error:has-text('needs 9 annotators, there are 3')")
    assert page.inner_text("#design-result") == ""
    page.fill("#n_readers", "3")
    page.fill("#name", "Renamed study")
    page.click("text=Save the design")
    page.wait_for_selector("h1:text-is('Renamed study')")
    assert page.inner_text("#error") == ""
    page.click("text=Hand out images")
    page.wait_for_selector("#result:has-text('6 images handed out')")
    page.wait_for_selector("#progress td:has-text('Carla')")
    assert "Nothing is handed out" not in page.inner_text("main")

    _differ(server)
    page.goto(f"{server.address}/study/disagreements")
    page.wait_for_selector("#open h2:has-text('2 open')")
    page.click("text=Settle 1 by majority")
    page.wait_for_selector("#result:has-text('1 images settled')")
    page.wait_for_selector("#open h2:has-text('1 open')")
    assert page.locator("text=by majority").count() == 0
    assert page.locator("#incomplete details").count() == 1


def test_an_adjudicator_settles_what_is_open(server, open_page):
    page = open_page("chen")
    page.wait_for_url("**/study/disagreements")
    page.click("#open tbody a")
    image_id = page.inner_text("h1")
    page.wait_for_selector("#viewer img.image")
    picture = page.locator("#viewer img.image").bounding_box()
    assert min(picture["width"], picture["height"]) > 380  # 96 px, four times as large
    page.keyboard.press("z")  # native pixels, in one key
    page.wait_for_selector("#viewer .readout:text-is('100 %')")
    page.keyboard.press("d")
    page.wait_for_selector(".guide:has-text('Crescent')")
    assert violations(page) == []
    page.keyboard.press("d")
    page.click("text=Settle and next")
    page.wait_for_selector("#error:has-text('tick those that it shows')")
    page.check("input[value=normal]")
    page.check("input[value=cgn]")  # clears what it excludes
    assert not page.is_checked("input[value=normal]")
    page.check("input[name=none]")
    assert not page.is_checked("input[value=cgn]")
    page.check("input[value=fsg]")
    page.click("text=Settle and next")
    page.wait_for_url(lambda url: image_id not in url)
    with open_store(server.db) as store:
        (settled,) = adjudication_history(store, image_id, by="owner")
        assert list_items(store, "chen") == []
    assert (settled.login, dict(settled.labels)) == ("chen", SCLEROSIS)


PAGES = {
    "owner": (
        "/study",
        "/study/people",
        "/slides",
        "/study/agreement",
        "/study/disagreements?settled=true",
        f"/study/disagreement?image={quote('glom_002')}",
        "/study/export",
        "/account",
    ),
    "anna": ("/label", "/review", "/slides"),
    "chen": ("/study/disagreements",),
}


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_every_page_fits_a_telephone_and_has_no_violation(server, open_page, locale):
    for login, paths in PAGES.items():
        page = open_page(login, width=390, height=844, touch=True, locale=locale)
        for path in paths:
            page.goto(server.address + path)
            if path == "/label":
                page.wait_for_selector("#viewer[data-place]", timeout=60_000)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            for tab in page.locator(".tabs a").all():
                assert tab.bounding_box()["x"] + tab.bounding_box()["width"] <= 390, path
            for details in page.locator("details:not([open]) summary").all():
                details.click()
            assert violations(page) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
