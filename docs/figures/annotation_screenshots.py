"""Take the screenshots of ``docs/how-to/label-in-the-browser.md`` (synthetic images).

Run: glomerulab phantom --out crops --patients 6 --per-patient 4
     glomerulab phantom --out slides --slides --patients 2 --per-patient 4
     python -m docs.figures.annotation_screenshots crops/manifest.csv slides/slides.csv
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from glomerulab.apps.annotation.records import StudySettings
from glomerulab.apps.annotation.region_sync import import_region_file
from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.study import create_study
from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.slides_table import read_slides
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from tests.support.annotation_server import Server

IMAGES = Path(__file__).resolve().parents[1] / "images"
PASSWORD = "only for screenshots"  # noqa: S105 - of a study that is thrown away
PEOPLE = (("wang", "Dr Wang Fang"), ("meier", "Dr Anna Meier"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "annotations.db"
        begin(db, arguments.manifest)
        propose(db, arguments.slides, Path(folder))
        server = Server(db, "--slides", arguments.slides)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=arguments.chromium, args=["--no-sandbox"]
                )
                take_all(browser, server.address)
        finally:
            server.stop()


def begin(db: Path, manifest: Path) -> None:
    """Make a study of two readers."""
    with open_store(db, create=True) as store:
        create_account(
            store, login="owner", name="Dr Olga Ivanova", role="owner", password=PASSWORD, by=None
        )
        settings = StudySettings("Phantom glomeruli (synthetic)")
        create_study(store, read_manifest(manifest), owner="owner", settings=settings)
        for login, name in PEOPLE:
            create_account(
                store, login=login, name=name, role="annotator", password=PASSWORD, by="owner"
            )
        distribute(store, by="owner")


def propose(db: Path, slides: Path, folder: Path) -> None:
    """Give a reader the outlines of the first slide, the last ones as proposals of a model."""
    entry = min(read_slides(slides), key=lambda one: one.slide_id)
    regions = read_regions(slides.parent / "regions" / f"{entry.slide_id}.geojson")
    n_proposed = max(len(regions) // 3, 1)
    marked = [
        replace(
            one,
            labels=(PROPOSAL_LABEL,) if n < n_proposed else ("glomerulus",),
            source_classes=None,
        )
        for n, one in enumerate(reversed(regions))
    ]
    write_regions(marked, folder / "proposed.geojson")
    with open_store(db) as store:
        import_region_file(store, folder / "proposed.geojson", entry.path, login="wang")


def take_all(browser: object, address: str) -> None:
    """Label as two people would, and take the pictures on the way."""
    reader = open_page(browser, address, "wang")
    for number in range(9):
        label(reader, ("1", "2", "4", "3")[number % 4])
    reader.keyboard.press("3")
    reader.keyboard.press("4")
    shoot(reader, "annotation_label.jpg")
    reader.set_viewport_size({"width": 820, "height": 1180})
    shoot(reader, "annotation_tablet.jpg")
    draw(reader, address)
    other = open_page(browser, address, "meier")
    for number in range(14):
        label(other, ("2", "1", "4")[number % 3])
    owner = open_page(browser, address, "owner")
    shoot(owner, "annotation_overview.png")
    owner.goto(f"{address}/study/disagreements")
    owner.click("tbody a >> nth=0")
    shoot(owner, "annotation_disagreement.jpg")
    owner.goto(f"{address}/study/agreement")
    owner.wait_for_selector("table")
    shoot(owner, "annotation_agreement.png")


def open_page(browser: object, address: str, login: str) -> Page:
    """Log in."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"{address}/login")
    page.fill("#login", login)
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def label(page: Page, key: str) -> None:
    """Label the image that is shown, and wait for the next."""
    page.wait_for_selector("#viewer[data-place]")
    place = page.get_attribute("#viewer", "data-place")
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector(f'#viewer:not([data-place="{place}"])')


def draw(page: Page, address: str) -> None:
    """Show the first proposal of the first slide, to be accepted or corrected."""
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/slides")
    page.click(".cards a >> nth=0")
    page.wait_for_selector("#viewer[data-ready]")
    page.keyboard.press("a")
    page.keyboard.press("-")
    shoot(page, "annotation_slide.jpg")


def shoot(page: Page, name: str) -> None:
    """Take a picture when the page has come to rest."""
    page.wait_for_timeout(1200)
    kind = {"type": "jpeg", "quality": 82} if name.endswith(".jpg") else {}
    page.screenshot(path=str(IMAGES / name), **kind)


if __name__ == "__main__":
    main()
