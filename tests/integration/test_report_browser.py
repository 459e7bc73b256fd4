"""The report in a real browser: no requests, no console errors, nothing cut off."""

from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.reports.case.write import write_case_reports
from glomerulab.reports.run.report import write_run_report
from tests.support.cases import case, one_call, write_case
from tests.support.run_folders import RunRecipe, write_run
from tests.support.untrained_runs import write_two_cohorts, write_untrained_run

pytestmark = pytest.mark.browser


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
