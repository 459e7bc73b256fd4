"""Commands of the program that are killed and repeated, with small inputs of their own."""

import shutil
from pathlib import Path

import numpy as np

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.cohort.splits import split_by_patient
from glomerulab.geometry import Box, Region
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions
from tests.support.cases import case_folder

__all__ = ["COMMANDS", "write_inputs"]

TRAIN = """\
manifest = "crops/split.csv"
out = "run"
epochs = 3
batch_size = 6
precision = "float32"
augmentation = false

[model]
name = "improved_seresnet_small"
input_size = 32
"""

MODEL = "trained/run"
COMMANDS: dict[str, tuple[str, ...]] = {
    "split": ("split", "crops/manifest.csv", "--out", "crops/parts.csv", "--seed", "1"),
    "extract": ("extract", "slides", "--regions", "regions", "--out", "out", "--mpp", "0.5"),
    "normalize": (
        *("normalize", "crops/manifest.csv", "--target-he", "he.png", "--target-pas", "pas.png"),
        *("--keep-others", "--trust-stains", "--out", "out"),
    ),
    "augment": ("augment", "crops/split.csv", "--total", "40", "--out", "out"),
    "embed": ("embed", "crops/manifest.csv", "--model", MODEL, "--out", "out"),
    "train": ("train", "train.toml", "--resume"),
    "predict": ("predict", "slides", "--model", MODEL, "--regions", "regions", "--out", "out"),
    "evaluate": ("evaluate", MODEL, "--resamples", "2000"),
    "report": ("report", "predictions", "--format", "html,csv,fhir,geojson", "--out", "out"),
    "export": ("export", MODEL),
}
"""In the folder that `write_inputs` filled."""


def write_inputs(folder: Path, trained: Path) -> None:
    """Write slides, crops, predictions and a copy of a trained model."""
    shutil.copytree(trained.parent, folder / "trained")
    rng = np.random.default_rng(4)
    for number in (1, 2):
        pixels = np.full((700, 900, 3), 244, dtype=np.uint8)
        pixels[60:-60, 60:-60] = np.kron(
            rng.integers(90, 220, (29, 39, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8)
        )
        (folder / "slides").mkdir(exist_ok=True, parents=True)
        write_pyramid(pixels, folder / "slides" / f"s{number}.tif", mpp=0.5, tile_px=256)
        boxes = [Box(80 + 200 * n, 90 + 130 * n, 160, 160) for n in range(3)]
        regions = [Region.from_box(f"g{n}", box) for n, box in enumerate(boxes)]
        (folder / "regions").mkdir(exist_ok=True)
        write_regions(regions, folder / "regions" / f"s{number}.geojson")
    crops = folder / "crops"
    manifest = read_manifest(
        write_phantom_crops(crops, n_patients=8, n_per_patient=4, size=48, mpp=3.0, seed=1)
    )
    for stain, rows in manifest.table.groupby("stain"):
        shutil.copy(crops / rows["image_path"].iloc[0], folder / f"{str(stain).lower()}.png")
    parts = split_by_patient(manifest, seed=1)
    write_manifest(parts, crops / "split.csv")
    case_folder(folder / "predictions")
    (folder / "train.toml").write_text(TRAIN, encoding="utf-8")
