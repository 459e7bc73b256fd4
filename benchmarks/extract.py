"""Crops per second of `extract` against a bare OpenSlide loop on the same regions.

Run: python benchmarks/extract.py [--slide SLIDE]

The bare loop is a minimal script: one process, open the slide, read each box from the level
just finer than wanted, resize with Lanczos, save as PNG at zlib's fastest level. It writes no
manifest, has no padding, checks nothing and cannot be resumed. The second loop saves PNGs as
`extract` does, by run lengths, so that the difference is the cost of all other work. The slide is
texture at 0.25 µm, or a real one. Rounds alternate; the best of each is compared.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.files import write_regions

SLIDE_SIDE = 10_000
SLIDE_MPP = 0.25
WANTED_MPP = 0.5
MARGIN = 0.1
Z_RLE = 3
BARE = "bare OpenSlide loop"


def make_slide(folder: Path) -> Path:
    """Write a textured JPEG slide."""
    from glomerulab.slides.pyramid import write_pyramid

    rng = np.random.default_rng(2022)
    coarse = rng.integers(90, 230, (SLIDE_SIDE // 8, SLIDE_SIDE // 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((SLIDE_SIDE, SLIDE_SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    pixels = np.clip(pixels + rng.integers(-9, 9, pixels.shape, dtype=np.int8), 0, 255)
    slide = folder / "slide.tiff"
    write_pyramid(pixels.astype(np.uint8), slide, mpp=SLIDE_MPP)
    return slide


def make_regions(slide_path: Path, folder: Path, n_regions: int) -> tuple[Path, list[Box]]:
    """Place glomerulus-sized regions (150 to 300 µm) that stay inside with their margins."""
    slide = openslide.OpenSlide(slide_path)
    mpp = float(slide.properties["openslide.mpp-x"])
    rng = np.random.default_rng(2022)
    boxes = []
    for _ in range(n_regions):
        side = round(rng.uniform(150, 300) / mpp)
        edge = round(MARGIN * side) + 1
        x, y = (int(rng.integers(edge, extent - side - edge)) for extent in slide.dimensions)
        boxes.append(Box(x, y, side, side))
    regions = folder / "regions.geojson"
    write_regions([Region.from_box(f"g{i}", box) for i, box in enumerate(boxes)], regions)
    return regions, [box.grown(MARGIN) for box in boxes]


def bare_loop(slide_path: Path, boxes: list[Box], out: Path, **png: int) -> None:
    """Cut the boxes in a minimal loop."""
    out.mkdir()
    slide = openslide.OpenSlide(slide_path)
    downsample = WANTED_MPP / float(slide.properties["openslide.mpp-x"])
    level = slide.get_best_level_for_downsample(downsample * 1.001)
    own = slide.level_downsamples[level]
    for number, box in enumerate(boxes):
        size = (round(box.width / own), round(box.height / own))
        crop = slide.read_region((box.x, box.y), level, size).convert("RGB")
        wanted = (round(box.width / downsample), round(box.height / downsample))
        if wanted != size:
            crop = crop.resize(wanted, Image.Resampling.LANCZOS)
        crop.save(out / f"{number}.png", compress_level=1, **png)


def seconds(work: Callable[[Path], object], folder: Path) -> float:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    work(out)
    return time.perf_counter() - start


def main() -> None:
    # Not at the top: workers import this file, and the command spares them the tables, too.
    from glomerulab.pipeline.crop_plan import CropSettings
    from glomerulab.pipeline.extract import extract_crops

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slide", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide = arguments.slide or make_slide(folder)
        regions, boxes = make_regions(slide, folder, arguments.regions)
        settings = CropSettings(mpp=WANTED_MPP, margin=MARGIN)

        def extract(n_workers: int) -> Callable[[Path], object]:
            return lambda out: extract_crops(
                slide, regions=regions, out=out, settings=settings, n_workers=n_workers
            )

        works: dict[str, Callable[[Path], object]] = {
            BARE: lambda out: bare_loop(slide, boxes, out),
            "bare loop, PNG by run lengths": lambda out: bare_loop(
                slide, boxes, out, compress_type=Z_RLE
            ),
            "extract, 1 worker": extract(1),
            "extract, 2 workers": extract(2),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.repeats):
            for name, work in works.items():
                times[name].append(seconds(work, folder))
    base = min(times[BARE])
    print(
        f"{arguments.slide.name if arguments.slide else 'texture'}, {arguments.regions} regions, "
        f"best of {arguments.repeats}, {platform.machine()}, {os.cpu_count()} cores\n"
    )
    print("| | crops/s | against the bare loop |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {arguments.regions / min(taken):.1f} | {base / min(taken):.2f} |")


if __name__ == "__main__":
    main()
