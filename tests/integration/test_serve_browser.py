"""The page of a served model in Chromium, at the widths of a laptop and of a telephone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from glomerulab.apps.serve.auth import add_key
from tests.support.result_pages import write_references
from tests.support.served_models import ServedProcess, write_slide

pytestmark = pytest.mark.browser

AXE = Path(__file__).resolve().parents[2] / "build" / "dev-assets" / "axe.min.js"


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory) -> Iterator[tuple[ServedProcess, str]]:
    folder = tmp_path_factory.mktemp("served")
    key = add_key(folder / "keys.json", "anna")
    references = write_references(folder / "references", "cgn")
    options = ("--keys", folder / "keys.json", "--references", references)
    server = ServedProcess(folder, "--model", trained, *options)
    yield server, key
    server.stop()


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["laptop", "telephone"])
def page(request, browser, served) -> Iterator[Page]:
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.goto(str(served[0].http.base_url))
    yield page
    page.close()
    # The browser itself logs rejected requests.
    assert [text for text in logged if "401" not in text and "422" not in text] == []


def test_an_image_is_predicted_by_keyboard_and_shown_with_an_overlay(page, served, trained):
    page.get_by_label("API key").fill(served[1])
    page.get_by_label("Image of one glomerulus").set_input_files(trained.parent / "63.png")
    page.get_by_label("Stain").select_option("PAS")
    page.get_by_label("µm per pixel").fill("0.5")
    page.keyboard.press("Enter")
    expect(page.locator("#call")).to_have_text("Crescent")
    expect(page.locator("#labels tr")).to_have_count(4)
    expect(page.locator("#overlay")).to_be_visible()
    assert page.locator("#overlay").evaluate("image => image.naturalWidth") == 96
    expect(page.locator("#prediction")).to_be_focused()
    for width in (390, 820, 1366, 1920, page.viewport_size["width"]):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_definitions_come_with_the_pictures_that_the_study_supplies(page, trained):
    page.get_by_label("Image of one glomerulus").set_input_files(trained.parent / "63.png")
    page.locator("#preview .stage").press("d")
    picture = page.locator("#preview .guide img")
    expect(picture).to_have_attribute("alt", "Crescent")
    assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 480
    page.get_by_role("link", name="The model").click()
    expect(page.get_by_role("definition")).to_have_count(4)
    expect(page.get_by_role("definition").nth(3)).to_contain_text("Bowman's capsule")
    shown = page.get_by_role("definition").get_by_role("img")
    assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") == 480


def test_an_image_of_glass_has_no_table_of_probabilities(page, served, tmp_path):
    Image.new("RGB", (200, 200), (243, 243, 243)).save(tmp_path / "glass.png")
    page.get_by_label("API key").fill(served[1])
    page.get_by_label("Image of one glomerulus").set_input_files(tmp_path / "glass.png")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#call")).to_have_text("not assessed as a glomerulus")
    expect(page.get_by_role("table")).to_have_count(0)


def test_errors_are_shown_on_the_page(page, served, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    page.get_by_label("API key").fill("glk_wrong")
    page.get_by_label("Image of one glomerulus").set_input_files(tmp_path / "text.png")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.get_by_label("API key").fill(served[1])
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("PNG, JPEG, TIFF, BMP")


def test_an_image_can_be_dropped(page, served, trained):
    content = list((trained.parent / "60.png").read_bytes())
    page.evaluate(
        """bytes => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
        }""",
        content,
    )
    expect(page.locator("#preview")).to_be_visible()
    page.get_by_label("API key").fill(served[1])
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#call")).to_have_text("Normal")


def test_a_whole_slide_dropped_on_the_crop_page_leads_to_the_slides(page, served):
    page.evaluate(
        """() => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(9)], "s1.svs"));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
        }"""
    )
    expect(page.get_by_role("alert")).to_contain_text("This is a whole slide")


@pytest.fixture(scope="module")
def with_slides(trained, tmp_path_factory) -> Iterator[ServedProcess]:
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "slides", n=3)
    options = ("--slides", folder / "slides", "--jobs", folder / "jobs")
    server = ServedProcess(folder, "--model", trained, *options)
    yield server
    server.stop()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_job_is_started_watched_and_downloaded_on_the_page(browser, with_slides, language):
    context = browser.new_context(locale=language)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    address = str(with_slides.http.base_url)
    page.goto(f"{address}/?language={language}")
    page.locator("#image").set_input_files(
        {"name": "s1.svs", "mimeType": "", "buffer": b"a slide of another computer"}
    )
    page.get_by_role("alert").get_by_role("link").click()
    expect(page).to_have_url(re.compile("/slides.slide=s1.svs"))
    expect(page.get_by_role("alert")).to_contain_text("s1.svs")
    page.locator("#slides").select_option("s1.tif")
    expect(page.locator("#regions")).to_have_value("s1.geojson")
    page.locator("#stain").select_option("PAS")
    page.wait_for_load_state("networkidle")
    n_before = page.locator(".jobs li").count()
    page.locator("#start").click()
    expect(page.locator(".jobs li")).to_have_count(n_before + 1)
    job = page.locator(".jobs li").first
    expect(job).to_have_attribute("data-state", "done", timeout=90_000)
    with page.expect_download() as download:
        job.get_by_role("button").first.click()
    assert download.value.suggested_filename == "result.zip"
    for path in ("/", "/slides", "/model", "/programs"):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        for width in (390, 820, 1366, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []
    context.close()
