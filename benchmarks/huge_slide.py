"""Peak memory of `extract` and `slide thumbnail` on a slide of 100,000 x 100,000 pixels.

Run: python benchmarks/huge_slide.py

The slide is glass with a few islands of phantom tissue, five levels, JPEG tiles. Its tiles are
assembled here and written as a TIFF directly: encoding ten thousand million pixels of glass would
take minutes and change nothing. Each command runs in a separate process, whose peak is reported.
"""

import argparse
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from glomerulab.geometry import Box, Region
from glomerulab.phantom.crops import render_crop
from glomerulab.phantom.section import draw_section, scanner_park
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.tiff_structure import Directory, Tag, write_tiff

SIDE = 100_000
TILE = 256
STEP = 4
N_LEVELS = 5
GLASS = (243, 242, 244)
ISLAND = 2048
ISLAND_CORNERS = ((8_192, 12_288), (49_152, 40_960), (90_112, 86_016), (20_480, 81_920))
ISLAND_KINDS = ("normal", "mspgn", "fsg", "cgn")
MPP = 0.25


def write_huge_slide(path: Path, *, seed: int = 0) -> None:
    """Write the slide."""
    section = draw_section("PAS", np.random.default_rng(seed), scanner=scanner_park(seed)[0])
    islands = [
        Image.fromarray(render_crop(kind, section, seed, size=ISLAND, mpp=MPP).pixels)
        for kind in ISLAND_KINDS
    ]
    with tempfile.TemporaryDirectory() as temporary:
        tiles_path = Path(temporary) / "tiles"
        with tiles_path.open("wb") as tiles:
            glass = _append(tiles, Image.new("RGB", (TILE, TILE), GLASS))
            directories = [_level(tiles, islands, level, glass) for level in range(N_LEVELS)]
        write_tiff(directories, tiles_path, path, is_big=False)


def _append(tiles: io.BufferedWriter, image: Image.Image) -> tuple[int, int]:
    start = tiles.tell()
    image.save(tiles, format="JPEG", quality=85, subsampling=0)
    return start, tiles.tell() - start


def _level(
    tiles: io.BufferedWriter, islands: list[Image.Image], level: int, glass: tuple[int, int]
) -> Directory:
    factor = STEP**level
    side = math.ceil(SIDE / factor)
    n_across = math.ceil(side / TILE)
    places = [glass] * (n_across * n_across)
    canvases: dict[tuple[int, int], Image.Image] = {}
    for (x, y), island in zip(ISLAND_CORNERS, islands, strict=True):
        small = island.reduce(factor)
        left, upper = x // factor, y // factor
        for row in range(upper // TILE, (upper + small.height - 1) // TILE + 1):
            for column in range(left // TILE, (left + small.width - 1) // TILE + 1):
                canvas = canvases.setdefault((row, column), Image.new("RGB", (TILE, TILE), GLASS))
                canvas.paste(small, (left - column * TILE, upper - row * TILE))
    for (row, column), canvas in canvases.items():
        places[row * n_across + column] = _append(tiles, canvas)
    return Directory(_tags(side, places, is_reduced=level > 0), "<")


def _tags(side: int, places: list[tuple[int, int]], *, is_reduced: bool) -> dict[int, Tag]:
    def short(*values: int) -> Tag:
        return Tag(3, len(values), struct.pack(f"<{len(values)}H", *values))

    def long(*values: int) -> Tag:
        return Tag(4, len(values), struct.pack(f"<{len(values)}I", *values))

    per_centimetre = Tag(5, 1, struct.pack("<2I", round(10_000 / MPP), 1))
    return {
        254: long(int(is_reduced)),
        256: long(side),
        257: long(side),
        258: short(8, 8, 8),
        259: short(7),
        262: short(6),
        277: short(3),
        282: per_centimetre,
        283: per_centimetre,
        284: short(1),
        296: short(3),
        322: short(TILE),
        323: short(TILE),
        324: long(*(start for start, _ in places)),
        325: long(*(length for _, length in places)),
        530: short(1, 1),
    }


def regions_of_islands(n: int, *, seed: int = 1) -> list[Region]:
    """Choose boxes of 600 pixels inside the islands, and one at the slide's edge."""
    rng = np.random.default_rng(seed)
    regions = [Region.from_box("edge", Box(SIDE - 500, SIDE - 500, 900, 900))]
    places = [(x, y) for x in range(100, ISLAND - 700, 300) for y in range(100, ISLAND - 700, 300)]
    rng.shuffle(places)
    for number in range(n - 1):
        x, y = ISLAND_CORNERS[number % len(ISLAND_CORNERS)]
        # Apart, since regions in one place are counted once.
        left, upper = places[number // len(ISLAND_CORNERS)]
        regions.append(Region.from_box(f"g{number}", Box(x + left, y + upper, 600, 600)))
    return regions


MEASURED = """
import json, sys
from pathlib import Path
from glomerulab.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    code = ended.code or 0
# VmHWM and not ru_maxrss, which a child inherits from the process that started it.
status = Path("/proc/self/status").read_text().splitlines()
peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(json.dumps({"code": code, "peak_kib": int(peak)}))
"""


def peak_mib(*arguments: object) -> float:
    """Run a command of the program and return its peak memory in MiB."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["code"]:
        raise RuntimeError(done.stderr)
    return result["peak_kib"] / 1024


def measure(folder: Path, *, n_regions: int) -> dict[str, float]:
    """Write the slide into a folder, cut it, and return the peaks in MiB by command."""
    slide, regions = folder / "huge.tiff", folder / "regions.geojson"
    write_huge_slide(slide)
    write_regions(regions_of_islands(n_regions), regions)
    extract = ("extract", slide, "--regions", regions, "--out")
    return {
        "slide info": peak_mib("slide", "info", slide),
        "extract at 0.25 µm": peak_mib(*extract, folder / "native", "--mpp", 0.25),
        "extract at 0.8 µm": peak_mib(*extract, folder / "resampled", "--mpp", 0.8),
        "slide thumbnail": peak_mib("slide", "thumbnail", slide, folder / "thumbnail.png"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peaks = measure(Path(folder), n_regions=arguments.regions)
    print(f"{SIDE:,} x {SIDE:,} pixels, {arguments.regions} regions\n")
    print("| command | peak MiB |\n|---|---|")
    for command, peak in peaks.items():
        print(f"| {command} | {peak:.0f} |")


if __name__ == "__main__":
    main()
