"""The report in a real browser: nothing loaded, nothing complained of, nothing cut off."""

import shutil
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.report.run_report import write_run_report
from glomerulab.report.write_case import write_case_reports
from tests.cases import case, one_call, write_case
from tests.run_folders import RunRecipe, write_run
from tests.untrained_runs import write_two_cohorts, write_untrained_run

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.fail("Chromium is not installed; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


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
    """Open a report; afterwards nothing was loaded, complained of, broken or cut off."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_loads_nothing_and_fits_the_screen(browser, report, width):
    with _opened(browser, report, width) as page:
        assert page.locator("h1").is_visible()


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
        for title in ("Internal and external, side by side", "What the model takes for alike"):
            assert page.get_by_role("heading", name=title).is_visible()
        shown = page.get_by_role("heading", name="External set:")
        assert shown.count() == 3
        assert page.get_by_text("map: ").count() >= 1
        figures = page.evaluate(
            "[...document.querySelectorAll('figure')].map(x => x.getBoundingClientRect().toJSON())"
        )
        assert figures
        assert all(one["left"] >= 0 and one["right"] <= width for one in figures)
