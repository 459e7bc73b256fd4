"""Processor time and peak memory of what becomes of a structure map: objects, measures, files.

    python benchmarks/structures.py FOLDER [--side 10000]

The map is drawn: packed tubules that touch, one in ten atrophic, glomeruli with tufts, arteries,
fibrosis between them, all in a cortex with glass around; the slide has two pixels per pixel of it
and shows the same. Every step runs in a process of its own.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyvips

from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.slide import open_slide
from glomerulab.structures.areas import area_summaries
from glomerulab.structures.dicom import write_segmentations
from glomerulab.structures.geojson import write_geojson
from glomerulab.structures.instances import count_possible, find_objects
from glomerulab.structures.label_image import write_label_image
from glomerulab.structures.maps import MapFrame, StructureMap, create_map, open_map
from glomerulab.structures.measuring import measure_objects
from glomerulab.structures.write import write_structures

STRUCTURES = (
    "cortex",
    "fibrosis",
    "tubule",
    "atrophic_tubule",
    "artery",
    "glomerulus",
    "tuft",
)
PATCH = 500
"""Pixels of the piece that is repeated."""
GLASS, PINK, PURPLE = (243, 243, 243), (226, 150, 190), (110, 80, 160)


def draw_patch(seed: int) -> tuple[npt.NDArray[np.uint16], ...]:
    """Return the likely, certain and core bits of a piece of cortex at 1 µm, and its lumens."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:PATCH, :PATCH]
    likely, certain, core = (np.zeros((PATCH, PATCH), np.uint16) for _ in range(3))
    likely |= 1
    certain |= 1
    light = np.zeros((PATCH, PATCH), np.uint16)

    def add(place: tuple[float, float], radius: float, *bits: int) -> None:
        distance = np.hypot(rows - place[0], columns - place[1])
        for bit in bits:
            likely[distance <= radius] |= 1 << bit
            certain[distance <= radius - 1] |= 1 << bit
            core[distance <= radius - 4] |= 1 << bit

    glomerulus = (130.0, 130.0)
    artery = (400.0, 400.0)
    for x in range(20, PATCH, 40):
        for y in range(20, PATCH, 40):
            place = y + rng.uniform(-2, 2), x + rng.uniform(-2, 2)
            if min(np.hypot(*np.subtract(place, one)) for one in (glomerulus, artery)) < 125:
                continue
            is_atrophic = rng.random() < 0.1
            radius = rng.uniform(10, 13) if is_atrophic else rng.uniform(17, 21)
            add(place, radius, 2, *([3] if is_atrophic else []))
            light[np.hypot(rows - place[0], columns - place[1]) <= radius / 2] = 1
    likely[
        (likely == 1) & (rng.random((PATCH // 10, PATCH // 10)).repeat(10, 0).repeat(10, 1) < 0.3)
    ] |= 2
    add(glomerulus, 95, 5)
    add(glomerulus, 75, 6)
    add(artery, 50, 4)
    light[np.hypot(rows - artery[0], columns - artery[1]) <= 25] = 1
    return likely, certain, core, light


def draw(folder: Path, side: int) -> None:
    """Write map and slide: a quarter of the side is glass, half at each end."""
    frame = MapFrame(STRUCTURES, side, side, (1.0, 1.0), (2.0, 2.0), (2 * side, 2 * side))
    drawn = create_map(folder / "map", frame)
    n, first = (side * 3 // 4) // PATCH, (side // 8) // PATCH * PATCH
    pieces = [draw_patch(seed) for seed in range(4)]
    image = np.full((PATCH, side, 3), GLASS, np.uint8)
    strips = []
    for row in range(n):
        image[:] = GLASS
        for column in range(n):
            likely, certain, core, light = pieces[(row + column) % 4]
            place = np.s_[
                first + row * PATCH : first + (row + 1) * PATCH,
                first + column * PATCH : first + (column + 1) * PATCH,
            ]
            drawn.possible[place] = drawn.likely[place] = likely
            drawn.certain[place], drawn.core[place] = certain, core
            part = image[:, first + column * PATCH : first + (column + 1) * PATCH]
            part[:] = np.where((light > 0)[..., None], GLASS, PINK)
            part[::12, ::12] = PURPLE
        strip = pyvips.Image.new_from_memory(image.tobytes(), side, PATCH, 3, "uchar")
        strips.append(strip.copy(interpretation="srgb"))
    tissue = pyvips.Image.arrayjoin(strips, across=1)
    whole = tissue.embed(0, first, side, side, extend="background", background=list(GLASS))
    write_pyramid(whole.resize(2, kernel="nearest"), folder / "slide.tif", mpp=0.5)


def steps(folder: Path) -> dict[str, Callable[[], int | None]]:
    """Return what is measured, by name."""
    found = open_map(folder / "map")
    slide = open_slide(folder / "slide.tif")
    out = folder / "out"
    out.mkdir(exist_ok=True)

    def objects(of: StructureMap) -> int:
        return sum(1 for _ in find_objects(of))

    return {
        "objects": lambda: objects(found),
        "areas and shares": lambda: len(area_summaries(found)),
        "possible objects": lambda: sum(count_possible(found).values()),
        "objects, outlines, measures": lambda: len(measure_objects(found)[0]),
        "the same with the slide's pixels": lambda: len(
            measure_objects(found, slide, stain="HE")[0]
        ),
        "GeoJSON of the areas": lambda: write_geojson(found, [], slide, out / "areas.geojson"),
        "label pyramid": lambda: write_label_image(found, out / "labels.tif"),
        "DICOM SEG": lambda: len(write_segmentations(found, slide, out)),
        "everything": lambda: len(write_structures(found, slide, out, stain="HE").structures),
    }


def measure(folder: Path, name: str) -> None:
    """Run one step and print its time and peak memory."""
    step = steps(folder)[name]
    start, started = time.process_time(), time.perf_counter()
    found = step()
    seconds, waited = time.process_time() - start, time.perf_counter() - started
    (peak,) = (
        int(line.split()[1]) / 1024**2
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    shown = "" if found is None else f"{found:,}"
    print(f"| {name} | {seconds:.1f} | {waited:.1f} | {peak:.2f} | {shown} |", flush=True)


def main() -> None:
    """Draw where nothing is drawn yet, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--only", action="append")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (arguments.folder / "slide.tif").exists():
        draw(arguments.folder, arguments.side)
    print("| step | processor s | s | peak GiB | n |\n|---|---|---|---|---|")
    processes = multiprocessing.get_context("spawn")
    for name in arguments.only or steps(arguments.folder):
        process = processes.Process(target=measure, args=(arguments.folder, name))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
