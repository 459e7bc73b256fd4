"""Distances between the hashes of the same and of different pictures.

Run: ``python benchmarks/near_duplicates.py``. Reads ``glas_colon_he`` and ``kidney_compartments``
from the folder GLOMERULAB_REAL_DATA (default ``../shared/data``), renders phantom crops, and
prints Markdown tables: the recall of altered copies and the share of false alarms among pictures
of different patients (or source images), by the number of bits that may differ; and the time per
image. With ``--images 20000 100000 1000000`` it compares as many random hashes instead, each size
in a process of its own, with one copy in a thousand planted in another part.
"""

import argparse
import io
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from glomerulab.cohort.hash_join import near_pairs
from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.near_duplicates import (
    MAX_DISTANCE,
    N_BITS,
    hash_distances,
    orientation_hashes,
)
from glomerulab.images import RgbImage, read_image
from glomerulab.phantom.crops import write_phantom_crops

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
N_ALL_PAIRS = 20_000
"""The largest cohort of which all pairs are compared too."""
LIMITS = (16, 32, 40, 48, 56, 64, 80, 96)


def jpeg(image: RgbImage, quality: int) -> RgbImage:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def resized(image: RgbImage, factor: float) -> RgbImage:
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def brighter(image: RgbImage, grey_levels: int) -> RgbImage:
    return np.clip(image.astype(np.int16) + grey_levels, 0, 255).astype(np.uint8)


def noisy(image: RgbImage, sigma: float) -> RgbImage:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def shifted(image: RgbImage, share: float) -> RgbImage:
    """Remove a strip above and on the left, as in a slightly shifted crop."""
    lost = max(1, round(share * min(image.shape[:2])))
    return image[lost:, lost:]


COPIES: dict[str, Callable[[RgbImage], RgbImage]] = {
    "JPEG, quality 50": lambda image: jpeg(image, 50),
    "half the size": lambda image: resized(image, 0.5),
    "12 grey levels brighter": lambda image: brighter(image, 12),
    "noise, sigma 5": lambda image: noisy(image, 5),
    "turned by 90 degrees": lambda image: np.rot90(image).copy(),
    "mirrored, JPEG 75": lambda image: jpeg(image[:, ::-1].copy(), 75),
    "shifted by 1 %": lambda image: shifted(image, 0.01),
    "shifted by 2 %": lambda image: shifted(image, 0.02),
    "shifted by 4 %": lambda image: shifted(image, 0.04),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.images:
        measure_pictures()
        return
    print("| images | planted | found | s, CPU | s, wall | peak MiB | all pairs, s, CPU |")
    print("|---" * 7 + "|", flush=True)
    for n_images in arguments.images:
        # A process of its own, for its peak of memory.
        args = (n_images, arguments.threads)
        process = multiprocessing.get_context("spawn").Process(target=measure_size, args=args)
        process.start()
        process.join()


def measure_size(n_images: int, n_threads: int) -> None:
    """Compare the parts of a split 6:2:2."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (n_images, 8, N_BITS // 64), dtype=np.uint64)
    edges = [n_images // 5, n_images * 4 // 5]
    n_planted = n_images // 1000
    for copy in range(n_planted):  # of another orientation, some bits away
        flipped = rng.choice(N_BITS, copy % (MAX_DISTANCE + 1), replace=False)
        bits = np.zeros(N_BITS, dtype=bool)
        bits[flipped] = True
        hashes[copy, 0] = hashes[n_images - 1 - copy, copy % 8] ^ np.packbits(bits).view(np.uint64)
    options = {"max_distance": MAX_DISTANCE, "max_pairs": 1_000_000, "n_threads": n_threads}
    near_pairs(hashes[:2, 0], hashes[:2], **options)  # compiled, or read from its cache
    cpu, wall, found = time.process_time(), time.perf_counter(), 0
    for start, stop in ((0, edges[0]), (edges[0], edges[1])):
        found += len(near_pairs(hashes[start:stop, 0], hashes[stop:], **options))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    all_pairs = "" if n_images > N_ALL_PAIRS else f"{all_pairs_seconds(hashes, edges):.1f}"
    print(
        f"| {n_images:,} | {n_planted:,} | {found:,} | {cpu:.1f} | {wall:.1f} | {peak:.0f} "
        f"| {all_pairs} |",
        flush=True,
    )


def all_pairs_seconds(hashes: npt.NDArray[np.uint64], edges: list[int]) -> float:
    bits = np.unpackbits(hashes.view(np.uint8), axis=-1).astype(bool)
    begin = time.process_time()
    for start, stop in ((0, edges[0]), (edges[0], edges[1])):
        for first in range(start, stop, 512):
            hash_distances(bits[first : min(first + 512, stop), 0], bits[stop:])
    return time.process_time() - begin


def measure_pictures() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}, one process\n")
    sources = {
        "glas_colon_he": (REAL_DATA / "glas_colon_he", "images", "patient_id"),
        "kidney_compartments": (REAL_DATA / "kidney_compartments", ".", "source_image"),
    }
    for name, (folder, images, group) in sources.items():
        labels = pd.read_csv(folder / "labels.csv")
        pictures = [read_image(folder / images / image) for image in labels["image"]]
        measure(name, pictures, labels[group].astype(str).to_numpy())
    with tempfile.TemporaryDirectory() as out:
        # Centred glomeruli resemble each other more than fields of tissue do.
        manifest = read_manifest(write_phantom_crops(Path(out), n_patients=24, size=256))
        pictures = [read_image(path) for path in manifest.image_paths()]
        patients = manifest.table["patient_id"].astype(str).to_numpy()
        measure("phantom (synthetic)", pictures, patients)


def measure(name: str, pictures: list[RgbImage], groups: npt.NDArray[np.object_]) -> None:
    start = time.perf_counter()
    hashes = np.stack([orientation_hashes(picture) for picture in pictures])
    per_image = (time.perf_counter() - start) / len(pictures)
    start = time.perf_counter()
    distances = hash_distances(hashes[:, 0], hashes)
    comparing = time.perf_counter() - start
    first, second = np.triu_indices(len(pictures), 1)
    between = distances[first, second][groups[first] != groups[second]]
    within = np.sort(distances[first, second][groups[first] == groups[second]])
    print(f"## {name}: {len(pictures)} images, {len(between)} pairs of different groups\n")
    print(
        f"Nearest pairs of different groups: {np.sort(between)[:5].tolist()} of {N_BITS} bits; "
        f"of one group: {within[:5].tolist()}\n"
    )
    print("| share found, by bits allowed | " + " | ".join(map(str, LIMITS)) + " | farthest |")
    print("|---" * (len(LIMITS) + 2) + "|")
    row("different pictures (false alarms)", between)
    for copy, alter in COPIES.items():
        altered = [
            hash_distances(orientation_hashes(alter(picture))[:1], hashes[place : place + 1])[0, 0]
            for place, picture in enumerate(pictures)
        ]
        row(copy, np.array(altered))
    print(f"\nHashing: {1e3 * per_image:.1f} ms per image; comparing all: {comparing:.2f} s\n")


def row(name: str, distances: npt.NDArray[np.int64]) -> None:
    shares = " | ".join(f"{np.mean(distances <= limit):.4f}" for limit in LIMITS)
    print(f"| {name} | {shares} | {distances.max()} |", flush=True)


if __name__ == "__main__":
    main()
