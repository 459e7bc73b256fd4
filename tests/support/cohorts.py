"""Slides of several patients, and the files that two runs of a cohort have in common."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glomerulab.geometry import Box, Region
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions
from tests.support.cases import picture

PATIENTS = ("p1", "p1", "p2", "p3", "", "病人 5")
ONE_TIME = {"SOURCE_DATE_EPOCH": "1764460800", "OMP_NUM_THREADS": "1"}
"""One time for all cohorts, and one thread for all processes, so that bytes can be compared."""
NOT_COMPARED = {"answers.jsonl", "normalize.jsonl"}
"""Records of when files were read, by which a case goes on."""


def write_slides(folder: Path, patients: Sequence[str]) -> Path:
    """Write a small slide with two glomeruli for each patient named, and ``slides.csv``."""
    rng = np.random.default_rng(4)
    folder.mkdir(exist_ok=True)
    lines = ["slide_path,slide_id,patient_id,stain"]
    for number, patient in enumerate(patients):
        pixels = np.full((300, 500, 3), 243, dtype=np.uint8)
        regions = []
        for place, label in enumerate(("normal", "cgn")):
            box = Box(60 + 200 * place, 100, 48, 48)
            pixels[100:148, box.x : box.x + 48] = picture(rng, label)
            regions.append(Region.from_box(f"g{place}", box))
        write_pyramid(pixels, folder / f"s{number}.tif", mpp=0.5, compression="deflate")
        write_regions(regions, folder / f"s{number}.geojson")
        lines.append(f"s{number}.tif,s{number},{patient},PAS")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return folder


def content(out: Path) -> dict[str, bytes]:
    """Return the files of the cases and calls."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for part in ("cases", "calls")
        for path in sorted((out / part).rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }
