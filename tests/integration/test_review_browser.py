"""The page of a case with `glomerulab review` behind it, in a real browser."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from glomerulab.images import write_image
from tests.support.cases import case, one_call, picture, write_case
from tests.support.result_pages import write_references
from tests.support.reviews import ReviewProcess, change
from tests.support.server_process import free_port

pytestmark = pytest.mark.browser

AXE = Path(__file__).resolve().parents[2] / "build" / "dev-assets" / "axe.min.js"
FROM_THE_NETWORK = "Failed to load resource"
"""Console message of the browser for each failed request."""


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    calls = [*case((7, "normal"), (2, "cgn")), one_call("x<1>", "fsg", either="normal+fsg")]
    return write_case(tmp_path / "predictions", calls)


@pytest.fixture
def start(predictions: Path) -> Iterator[Callable[..., ReviewProcess]]:
    started: list[ReviewProcess] = []

    def run(*options: str) -> ReviewProcess:
        started.append(ReviewProcess(predictions, *options))
        return started[-1]

    yield run
    for one in started:
        one.stop()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages of one person; the console may hold rejected requests only."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    problems: list[str] = []

    def run(address: str, width: int = 1280) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        return page

    yield run
    context.close()
    assert [text for text in problems if FROM_THE_NETWORK not in text] == []


def _card(page: Page, image: str = "x<1>") -> Locator:
    return page.locator(f'.cards li[data-image="{image}"]')


def _change(
    page: Page, label: str, *, image: str = "x<1>", by: str = "Dr Li", why: str = "cells"
) -> None:
    card = _card(page, image)
    card.locator(".change summary").click()
    expect(card.get_by_label("Why")).to_be_visible()  # the form is made when it is opened
    for box in card.get_by_role("checkbox", checked=True).all():
        box.uncheck()
    card.get_by_label(label).check()
    card.get_by_label("Why").fill(why)
    card.get_by_label("Your name").fill(by)
    card.get_by_role("button", name="Keep this change").click()


def _grade(page: Page, name: str) -> Locator:
    return page.locator(".rule tr", has_text=name).locator(".grade")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_count_and_rule_follows_a_change_and_outlives_the_program(
    start, open_page, predictions, width
):
    review = start()
    page = open_page(review.address, width)
    expect(page.locator(".headline")).to_have_text(
        "10 glomeruli: 7 normal, 1 segmental sclerosis, 2 crescent"
    )
    expect(_grade(page, "Cellular or fibrocellular crescents")).to_contain_text("C1")
    doubted = page.get_by_role("row", name="Segmental sclerosis 1 / 10")
    expect(doubted.locator("td").nth(2)).to_have_text("0 – 1")
    _change(page, "Crescent", why='cells, "many"')
    expect(page.locator(".headline")).to_have_text("10 glomeruli: 7 normal, 3 crescent")
    expect(page.locator("#review")).to_contain_text("Counted")
    expect(page.locator(".cards .pending, .stale:visible")).to_have_count(0)
    for row in ("Segmental sclerosis 0 / 10", "Crescent 3 / 10"):  # the doubt is gone too
        counted = page.get_by_role("row", name=row)
        expect(counted.locator("td").nth(2)).to_have_text(row.split()[-3])
    expect(_grade(page, "Cellular or fibrocellular crescents")).to_contain_text("C2")  # 3 of 10
    expect(_card(page).locator("s")).to_have_text("Segmental sclerosis")
    expect(_card(page)).to_contain_text('cells, "many"')
    expect(_card(page)).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []

    assert review.stop() == 130  # as Ctrl+C ends every program here
    restarted = start()
    page = open_page(restarted.address, width)
    expect(page.locator(".headline")).to_have_text("10 glomeruli: 7 normal, 3 crescent")
    expect(_card(page).locator("s")).to_have_text("Segmental sclerosis")
    lines = (predictions / "overrides.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert "Dr Li" in lines[1]


def test_two_tabs_see_the_changes_of_each_other_and_lose_none(start, open_page, predictions):
    address = start().address
    first, second = open_page(address), open_page(address)
    _change(first, "Crescent", by="Dr Li")
    expect(first.locator("#review")).to_contain_text("Counted")
    expect(second.locator("#review")).to_contain_text("its numbers are out of date", timeout=15_000)
    _change(second, "Normal", by="Dr Wu", why="recut")
    pending = _card(second).locator(".pending")
    expect(pending).to_contain_text(
        "somebody else changed this call meanwhile, to: Crescent (Dr Li"
    )
    assert "Dr Wu" not in (predictions / "overrides.csv").read_text(encoding="utf-8")
    second.reload()
    expect(_card(second).locator(".pending")).to_contain_text("Dr Li")
    _card(second).get_by_role("button", name="Count mine anyway").click()
    expect(second.locator(".headline")).to_have_text("10 glomeruli: 8 normal, 2 crescent")
    rows = (predictions / "overrides.csv").read_text(encoding="utf-8")
    assert rows.index("Dr Li") < rows.index("Dr Wu")


def test_an_image_that_moves_to_another_group_is_shown_there(start, open_page):
    page = open_page(start().address, 390)
    _change(page, "Crescent", image="normal-0")
    expect(page.locator("#review")).to_contain_text("Counted")
    page.wait_for_load_state("load")
    bar, card = page.locator("#review").bounding_box(), _card(page, "normal-0").bounding_box()
    assert bar["y"] + bar["height"] <= card["y"] < 450  # below the bar, in the upper half


def test_a_page_with_a_pending_change_does_not_show_that_all_are_counted(start, open_page):
    address = start().address
    page = open_page(address)
    httpx.post(f"{address}cases/p1/changes", json=change(image_id="x<1>")).raise_for_status()
    _change(page, "Normal")
    expect(_card(page).locator(".pending")).to_contain_text("somebody else")
    _change(page, "Crescent", image="normal-0")
    expect(page.locator(".headline")).to_have_text("10 glomeruli: 6 normal, 4 crescent")
    expect(page.locator(".stale:visible").first).to_be_visible()
    expect(page.locator("#review")).not_to_contain_text("every number")


def test_the_change_of_another_image_by_another_person_is_no_conflict(start, open_page):
    address = start().address
    page = open_page(address)
    httpx.post(
        f"{address}cases/p1/changes", json=change(image_id="normal-0", by="Dr Wu", labels="mspgn")
    ).raise_for_status()
    _change(page, "Crescent")
    expect(page.locator(".headline")).to_have_text(
        "10 glomeruli: 6 normal, 1 mesangial proliferation, 3 crescent"
    )


def test_a_half_typed_reason_survives_new_numbers(start, open_page):
    address = start().address
    page = open_page(address)
    card = _card(page, "cgn-0")
    card.locator(".change summary").click()
    card.get_by_label("Why").fill("perhaps fibrous")
    httpx.post(f"{address}cases/p1/changes", json=change(image_id="normal-0")).raise_for_status()
    page.get_by_role("button", name="Show the new numbers").click(timeout=15_000)
    expect(page.locator(".headline")).to_contain_text("3 crescent")
    expect(_card(page, "cgn-0").get_by_label("Why")).to_have_value("perhaps fibrous")


def test_changes_made_while_the_server_is_down_are_saved_and_counted_later(
    start, open_page, predictions, tmp_path
):
    port = str(free_port())
    review = start("--port", port)
    page = open_page(review.address)
    review.kill()
    _change(page, "Crescent")
    expect(page.locator("#review")).to_contain_text("does not respond")
    expect(_card(page).locator(".pending")).to_contain_text("Crescent")
    expect(page.locator(".stale:visible").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save them as a file").click()
    download.value.save_as(tmp_path / "saved.csv")
    assert "cells" in (tmp_path / "saved.csv").read_text(encoding="utf-8")

    restarted = start("--port", port)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#review")).to_contain_text("restarted")
    page.goto(restarted.address)  # the change is still in the browser and is counted now
    expect(page.locator(".headline")).to_have_text("10 glomeruli: 7 normal, 3 crescent")
    assert re.search("cells", (predictions / "overrides.csv").read_text(encoding="utf-8"))


def test_a_chinese_page_is_entirely_in_chinese(start, open_page):
    page = open_page(start("--language", "zh").address)
    card = _card(page)
    card.locator(".change summary").click()
    card.get_by_label("节段性硬化").uncheck()
    card.get_by_label("新月体").check()
    card.get_by_label("原因").fill("细胞性")
    card.get_by_label("姓名").fill("李医生")
    card.get_by_role("button", name="保留此更改").click()
    expect(page.locator("#review")).to_contain_text("已计入")
    expect(page.locator(".headline")).to_contain_text("3")


def test_damaged_predictions_are_reported_with_their_own_error(start, open_page, predictions):
    page = open_page(start().address)
    table = predictions / "predictions.csv"
    content = table.read_bytes()
    table.write_text("nonsense\n1\n", encoding="utf-8")
    expect(page.locator("#review")).to_contain_text("predictions.csv", timeout=15_000)
    expect(page.locator("#review")).to_contain_text("cannot be counted now")
    expect(page.locator("#review")).not_to_contain_text("does not respond")
    table.write_bytes(content)
    expect(page.locator("#review")).not_to_contain_text("cannot be counted", timeout=15_000)


def test_definitions_come_with_the_pictures_that_the_study_supplies(open_page, tmp_path):
    home = tmp_path / "with pictures"
    home.mkdir()
    write_image(picture(np.random.default_rng(1), "cgn"), home / "x.png")
    write_case(home, [replace(one_call("x", "cgn"), image_path="x.png")])
    references = write_references(tmp_path / "references", "cgn")
    server = ReviewProcess(home, "--references", str(references))
    try:
        page = open_page(server.address)
        page.keyboard.press("j")
        page.keyboard.press("d")
        shown = page.locator("#viewer .guide img")
        expect(shown).to_be_visible()
        assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") == 480
        assert page.content().count("data:image/jpeg") == 0  # the browser keeps it
    finally:
        server.stop()
