"""Compose the README's picture: labelling, case report and evaluation, on synthetic images.

Run: glomerulab quickstart --out quickstart
     glomerulab predict quickstart/phantom/slides.csv --model quickstart/run \
         --regions quickstart/phantom/regions --out predictions
     glomerulab report predictions --patient PATIENT --out reports
     python docs/figures/overview.py reports/PATIENT.html quickstart/run/report.html
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "images"
PANEL = (640, 400)
GAP = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case_report", type=Path)
    parser.add_argument("run_report", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        pages = []
        for path in (arguments.case_report, arguments.run_report):
            page = browser.new_page(viewport={"width": 1280, "height": 960})
            page.goto(path.resolve().as_uri())
            pages.append(Image.open(io.BytesIO(page.screenshot())))
        browser.close()
    panels = [Image.open(IMAGES / "annotation_label.jpg"), *pages]
    width = PANEL[0] * len(panels) + GAP * (len(panels) - 1)
    picture = Image.new("RGB", (width, PANEL[1]), "white")
    for number, panel in enumerate(panels):
        fitted = _cropped(panel.convert("RGB"))
        picture.paste(fitted, (number * (PANEL[0] + GAP), 0))
    picture.quantize(128).save(IMAGES / "overview.png", optimize=True)


def _cropped(panel: Image.Image) -> Image.Image:
    """Scale a panel to the width and keep its upper part."""
    height = round(panel.height * PANEL[0] / panel.width)
    scaled = panel.resize((PANEL[0], height), Image.Resampling.LANCZOS)
    fitted = Image.new("RGB", PANEL, "white")
    fitted.paste(scaled, (0, 0))
    return fitted


if __name__ == "__main__":
    main()
