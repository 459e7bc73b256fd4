"""Distances between the hashes of the same and of different pictures.

Run: ``python benchmarks/near_duplicates.py``. Reads ``glas_colon_he`` and ``kidney_compartments``
from the folder GLOMERULAB_REAL_DATA (default ``../shared/data``), renders phantom crops, and
prints Markdown tables: the recall of altered copies and the share of false alarms among pictures
of different patients (or source images), by the number of bits that may differ; and the time per
image.
"""

import io
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.near_duplicates import N_BITS, hash_distances, orientation_hashes
from glomerulab.images import RgbImage, read_image
from glomerulab.phantom.crops import write_phantom_crops

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
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
