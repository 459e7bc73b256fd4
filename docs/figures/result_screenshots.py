"""Take the screenshots of the report, review, serve and evaluation pages (synthetic data).

Run: glomerulab quickstart --out first
     glomerulab predict first/phantom/slides.csv --model first/run \
       --regions first/phantom/regions --out predictions
     python -m docs.figures.result_screenshots first/run predictions first/phantom/slides.csv
"""

import argparse
import tempfile
from pathlib import Path

from docs.figures.annotation_screenshots import shoot
from playwright.sync_api import Browser, Page, sync_playwright

from glomerulab.reports.case.write import write_case_reports
from tests.support.reviews import ReviewProcess
from tests.support.served_models import ServedProcess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        evaluation(browser, arguments.run)
        report(browser, arguments.predictions, Path(folder))
        review(browser, arguments.predictions, arguments.slides)
        serve(browser, arguments.run, arguments.predictions, Path(folder))


def evaluation(browser: Browser, run: Path) -> None:
    """Take the top of the page of a run."""
    page = opened(browser, (run / "report.html").resolve().as_uri())
    shoot(page, "evaluation.jpg")


def report(browser: Browser, predictions: Path, folder: Path) -> None:
    """Take the top of the first report."""
    written = write_case_reports(predictions, folder / "reports", formats="html")
    page = opened(browser, written.paths[0].resolve().as_uri())
    shoot(page, "report.jpg")


def review(browser: Browser, predictions: Path, slides: Path) -> None:
    """Take a glomerulus with its form, and another with its neighbours."""
    server = ReviewProcess(predictions, "--slides", str(slides))
    try:
        page = opened(browser, server.address)
        if page.locator(".cards").count() == 0:  # the list of cases
            page.click("main a >> nth=0")
        page.keyboard.press("j")
        page.wait_for_selector("#viewer .image")
        shoot(page, "review.jpg")
        page.keyboard.press("c")
        shoot(page, "review_surroundings.jpg")
    finally:
        server.stop()


def serve(browser: Browser, run: Path, predictions: Path, folder: Path) -> None:
    """Predict one crop on the page."""
    server = ServedProcess(folder, "--model", run)
    try:
        page = opened(browser, str(server.http.base_url))
        crop = min((predictions / "cut" / "crops").rglob("*.png"))
        page.get_by_label("Image of one glomerulus").set_input_files(crop)
        page.get_by_label("Stain").select_option(index=1)
        page.get_by_label("µm per pixel").fill("1")
        page.keyboard.press("Enter")
        page.wait_for_selector("#labels tr")
        page.evaluate("scrollTo(0, 0)")
        shoot(page, "serve.jpg")
    finally:
        server.stop()


def opened(browser: Browser, address: str) -> Page:
    """Open a page of the size of a laptop's screen."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_load_state("load")
    return page


if __name__ == "__main__":
    main()
