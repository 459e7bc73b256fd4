"""The report in a real browser: no requests, no console errors, nothing cut off."""

import io
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.geometry import Box
from glomerulab.images import write_image
from glomerulab.phantom.crops import example_crop
from glomerulab.reports.case.write import write_case_reports
from glomerulab.reports.run.explanation_summary import explanation_summary
from glomerulab.reports.run.explanations import map_tests, write_explanations_html
from glomerulab.reports.run.report import write_run_report
from glomerulab.reports.run.stain_check import write_stain_check
from tests.support.cases import PAPER, case, one_call, write_case
from tests.support.result_pages import (
    CONTROLS,
    explanation_table,
    stain_check,
    write_references,
)
from tests.support.run_folders import RunRecipe, write_run
from tests.support.untrained_runs import write_two_cohorts, write_untrained_run

pytestmark = pytest.mark.browser

AXE = Path(__file__).resolve().parents[2] / "build" / "dev-assets" / "axe.min.js"


@pytest.fixture(scope="module", params=["softmax", "sigmoid", "case"])
def report(request, tmp_path_factory):
    if request.param == "case":
        calls = [*case((7, "normal"), (2, "cgn")), one_call("x" * 60, "fsg", either="normal+fsg")]
        home = write_case(tmp_path_factory.mktemp("case") / "predictions", calls)
        return write_case_reports(home, home / "out", formats=["html"]).paths[0]
    recipe = RunRecipe(n_patients=12, head=request.param)
    return write_run_report(write_run(tmp_path_factory.mktemp("run") / "run", recipe)).html_path


@contextmanager
def _opened(browser, report, width):
    """Open a report; check that it made no request and no console error, and is not cut off."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    yield page
    assert problems == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {report.as_uri()}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_loads_nothing_and_fits_the_screen(browser, report, width):
    with _opened(browser, report, width) as page:
        assert page.locator("h1").is_visible()
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.fixture(scope="module")
def report_of_model(tmp_path_factory):
    """A report with all that a checkpoint and an external set add."""
    folder = tmp_path_factory.mktemp("model")
    own, other = write_two_cohorts(folder)
    run = write_untrained_run(folder / "run", own)
    result = CliRunner().invoke(app, ["evaluate", str(run), "--on", str(other)])
    assert result.exit_code == 0, result.output
    return run / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_features_saliency_and_external_set_are_seen(browser, report_of_model, width):
    with _opened(browser, report_of_model, width) as page:
        for title in ("Internal and external, side by side", "Map of the model's features"):
            assert page.get_by_role("heading", name=title).is_visible()
        shown = page.get_by_role("heading", name="External set:")
        assert shown.count() == 3
        assert page.get_by_text("map: ").count() >= 1
        figures = page.evaluate(
            "[...document.querySelectorAll('figure')].map(x => x.getBoundingClientRect().toJSON())"
        )
        assert figures
        assert all(one["left"] >= 0 and one["right"] <= width for one in figures)


def test_a_call_changed_on_the_page_is_kept_marked_saved_and_counted(browser, tmp_path):
    calls = [*case((7, "normal"), (2, "cgn")), one_call("x<1>", "fsg", either="normal+fsg")]
    home = write_case(tmp_path / "predictions", calls)
    report = write_case_reports(home, home / "out", formats=["html"]).paths[0]
    with _opened(browser, report, 1280) as page:
        assert page.locator(".stale:visible").count() == 0
        card = page.locator('.cards li[data-image="x<1>"]')
        card.locator(".change summary").click()
        assert card.get_by_label("Segmental sclerosis").is_checked()
        card.get_by_label("Normal").check()
        assert card.get_by_label("Segmental sclerosis").is_checked() is False  # they exclude
        card.get_by_label("Crescent").check()
        card.get_by_role("button", name="Keep this change").click()
        assert page.locator(".pending").count() == 0  # no name and no reason: nothing is kept
        card.get_by_label("Why").fill('cells, "many"')
        card.get_by_label("Your name").fill("Dr Li <b>")
        card.get_by_role("button", name="Keep this change").click()
        assert "Crescent" in card.locator(".pending").inner_text()
        assert page.locator(".stale:visible").count() == 4  # bar, headline, counts, results

        page.reload()
        assert "Dr Li <b>" in card.locator(".pending").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save them as a file").click()
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)

        done = CliRunner().invoke(app, ["override", str(home), "--from", str(saved)])
        assert done.exit_code == 0, done.output
        case_now = write_case_reports(home, home / "out", formats=["html"]).cases[0]
        assert case_now.corrections[0].reason == 'cells, "many"'
        assert case_now.corrections[0].labels == {"cgn"}
        page.reload()  # counted: no longer pending, and the model's call is still there
        assert page.locator(".stale:visible, .pending").count() == 0
        assert page.locator(".headline").inner_text() == "10 glomeruli: 7 normal, 3 crescent"
        assert "Segmental sclerosis" in page.locator("s").inner_text()


def test_a_change_can_be_taken_back_before_it_is_counted(browser, tmp_path):
    home = write_case(tmp_path / "predictions", case((2, "normal")))
    report = write_case_reports(home, home / "out", formats=["html"]).paths[0]
    with _opened(browser, report, 390) as page:
        card = page.locator(".cards li").first
        card.locator(".change summary").click()
        card.get_by_label("not a glomerulus").check()
        assert card.get_by_label("Normal").is_checked() is False
        card.get_by_label("Why").fill("tubule")
        card.get_by_label("Your name").fill("A")
        card.get_by_role("button", name="Keep this change").click()
        card.get_by_role("button", name="Take back").click()
        assert page.locator(".stale:visible, .pending").count() == 0


N_READ = 20
HIDDEN = (0, 90, 255)
"""A colour that no stain has."""


def _reading_case(folder: Path):
    """Crescents of phantom crops, in each of which 9 px of the lesion are painted."""
    rng = np.random.default_rng(11)
    calls, places = [], []
    folder.mkdir()
    for number in range(N_READ):
        crop = example_crop("PAS", "cgn", seed=number, size=480, mpp=0.5)
        rows, columns = np.nonzero(crop.masks["cgn"])
        place = int(rng.integers(len(rows)))
        y, x = (min(max(int(one[place]), 1), 478) for one in (rows, columns))
        pixels = crop.pixels.copy()
        pixels[y - 1 : y + 2, x - 1 : x + 2] = HIDDEN
        write_image(pixels, folder / f"{number}.png")
        box = Box(number * 500, 0, 480, 480)
        outline = tuple((box.x + u, v) for u, v in crop.outline)
        call = replace(one_call(f"g{number:02}"), box=box, outline=outline, mpp=0.5)
        calls.append(replace(call, image_path=f"{number}.png"))
        places.append((x, y))
    return write_case(folder, calls), places


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_the_pixels_of_a_hidden_lesion_are_on_the_screen_after_one_key(
    browser, tmp_path, width, height
):
    home, places = _reading_case(tmp_path / "predictions")
    report = write_case_reports(home, home / "out", formats=["html"]).paths[0]
    n_seen = 0
    with _opened(browser, report, width) as page:
        page.set_viewport_size({"width": width, "height": height})
        for number, place in enumerate(places):
            image = page.locator(f'.cards li[data-image="g{number:02}"] .picture')
            image.scroll_into_view_if_needed()
            box = image.bounding_box()
            share = [one / 480 for one in place]
            page.mouse.move(box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"])
            page.keyboard.press("z")
            expect(page.locator("#viewer .image")).to_be_visible()
            sheet = page.locator("#viewer .sheet").bounding_box()
            assert sheet["width"] >= 479  # no pixel of the crop is lost
            left, top = (sheet[axis] + share[i] * sheet["width"] for i, axis in enumerate("xy"))
            clip = {"x": round(left) - 6, "y": round(top) - 6, "width": 12, "height": 12}
            shot = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
            distance = np.abs(np.asarray(shot, dtype=np.int16) - HIDDEN).sum(axis=2)
            n_seen += int((distance < 90).sum() >= 9)
            page.keyboard.press("Escape")
    assert n_seen == N_READ


def test_the_viewer_shows_scale_outline_definitions_and_steps_by_key(browser, tmp_path):
    home, _ = _reading_case(tmp_path / "predictions")
    for language, title in (("en", "Crescent"), ("zh", "新月体形成")):
        report = write_case_reports(home, home / language, formats=["html"], language=language)
        with _opened(browser, report.paths[0], 1366) as page:
            page.keyboard.press("j")
            viewer = page.locator("#viewer")
            expect(page.locator(".side .place")).to_have_text("1 / 20")
            assert viewer.locator(".rule span").inner_text().endswith("µm")
            bar, sheet = (viewer.locator(one).bounding_box() for one in (".rule i", ".sheet"))
            length_um = int(viewer.locator(".rule span").inner_text().split()[0])
            assert bar["width"] / length_um == pytest.approx(sheet["width"] / 240, rel=0.02)
            expect(viewer.locator(".marks")).to_be_visible()
            page.keyboard.press("o")
            expect(viewer.locator(".marks")).to_be_hidden()
            page.keyboard.press("d")
            guide = viewer.locator(".guide")
            expect(guide.get_by_text(title)).to_be_visible()
            assert len(guide.inner_text()) > 200
            page.keyboard.press("j")
            expect(page.locator(".side .place")).to_have_text("2 / 20")
            for _ in range(20):
                page.keyboard.press("+")
            assert viewer.locator(".sheet").bounding_box()["width"] == pytest.approx(4 * 480, abs=1)
            page.keyboard.press("0")
            assert viewer.locator(".sheet").bounding_box()["width"] < 900


def test_definitions_come_with_the_pictures_that_the_study_supplies(browser, tmp_path):
    home, _ = _reading_case(tmp_path / "predictions")
    references = write_references(tmp_path / "references", "cgn", "not_a_glomerulus")
    options = ["--references", str(references), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["report", str(home), *options])
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "out" / "p1.html").read_bytes()) < 6e6
    with _opened(browser, tmp_path / "out" / "p1.html", 1366) as page:
        page.keyboard.press("j")
        page.keyboard.press("d")
        pictures = page.locator("#viewer .guide img")
        assert pictures.evaluate_all("all => all.map(one => one.alt)") == [
            "Crescent",
            "not a glomerulus",
        ]
        widths = pictures.evaluate_all("all => all.map(one => one.naturalWidth)")
        assert widths == [480, 480]  # of 1600


def test_a_call_is_confirmed_by_one_key_once_the_name_is_known(browser, tmp_path):
    home, _ = _reading_case(tmp_path / "predictions")
    report = write_case_reports(home, home / "out", formats=["html"]).paths[0]
    with _opened(browser, report, 1366) as page:
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator(".side").get_by_label("Your name")).to_be_focused()
        page.keyboard.type("Dr Li")
        page.locator("#viewer .stage").click()
        page.keyboard.press("Enter")
        expect(page.locator(".side .place")).to_have_text("2 / 20")
        page.keyboard.press("Enter")
        expect(page.locator(".side .place")).to_have_text("3 / 20")
        page.keyboard.press("4")
        expect(page.locator(".side").get_by_label("Crescent")).to_be_checked()
        page.keyboard.press("Enter")
        expect(page.locator(".side").get_by_label("Why")).to_be_focused()
        page.keyboard.type("cells")
        page.keyboard.press("Enter")
        expect(page.locator(".side .place")).to_have_text("4 / 20")
        page.keyboard.press("Escape")
        expect(page.locator(".cards .pending")).to_have_count(3)
        kept = page.locator(".cards .pending").all_inner_texts()
        assert "Normal" in kept[0]
        assert "Crescent" in kept[2]


def test_no_page_of_a_case_breaks_a_rule_of_accessibility(browser, tmp_path):
    home, _ = _reading_case(tmp_path / "predictions")
    report = write_case_reports(home, home / "out", formats=["html"]).paths[0]
    with _opened(browser, report, 1366) as page:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        for key in ("", "j", "d", "b"):
            if key:
                page.keyboard.press(key)
            found = page.evaluate("axe.run()")
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.mark.parametrize(("width", "language"), [(1280, "en"), (390, "zh")])
def test_stain_checks_and_explanations_break_no_rule_of_accessibility(
    browser, tmp_path, width, language
):
    table = explanation_table(occlusion={"deletion": 0.45, "energy_inside": 0.4}, **CONTROLS)
    for name in filter(None, table["overlay"]):
        write_image(example_crop("HE", "cgn", size=96).pixels, tmp_path / name)
    summary = explanation_summary(table)
    explained = write_explanations_html(
        table,
        summary,
        map_tests(summary, None),
        tmp_path,
        taxonomy=PAPER,
        title="run",
        language=language,
    )
    checked = write_stain_check(
        stain_check(tmp_path), tmp_path / "check", is_synthetic=True, language=language
    )
    for page_path in (explained, checked.html_path):
        with _opened(browser, page_path, width) as page:
            page.evaluate(AXE.read_text(encoding="utf-8"))
            found = page.evaluate("axe.run()")
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
