"""The report in a real browser: nothing loaded, nothing complained of, nothing cut off."""

import shutil

import pytest

from glomerulab.report.run_report import write_run_report
from glomerulab.report.write_case import write_case_reports
from tests.cases import case, one_call, write_case
from tests.run_folders import RunRecipe, write_run

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


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_loads_nothing_and_fits_the_screen(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0
    page.close()
