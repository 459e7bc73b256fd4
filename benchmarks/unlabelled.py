"""A manifest of real images without labels, for `glomerulab distill`; no GlaS image is among them.

    GLOMERULAB_REAL_DATA=... python benchmarks/unlabelled.py --out FOLDER

Kidney patches, stain fields, and tiles of the two real slides: each tile on tissue, 512 px, written
as PNG beside `manifest.csv`.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.images import read_image
from glomerulab.slides.slide import open_slide
from glomerulab.taxonomy import load_taxonomy

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("GLOMERULAB_REAL_DATA", "../shared/data"))
TILE_PX = 512
LEAST_SPREAD = 12.0  # grey levels; glass varies less
SLIDES = ("CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kidney = sorted(args.data.glob("kidney_compartments/*/*/*.png"))
    fields = [path for path in kidney if "mask" not in path.name]
    fields += [path for path in sorted((args.data / "stain").iterdir()) if path.is_file()]
    names = [copied(path, args.out, f"field-{n}") for n, path in enumerate(fields)]
    for slide in SLIDES:
        names += tiles(args.data / "slides" / slide, args.out)
    rows = pd.DataFrame({"image_id": [Path(n).stem for n in names], "image_path": names})
    taxonomy = load_taxonomy(ROOT / "configs" / "taxonomies" / "glas.toml")
    rows = rows.assign(**dict.fromkeys(taxonomy.label_ids, pd.NA))
    write_manifest(
        manifest_from_rows(rows, folder=args.out, taxonomy=taxonomy), args.out / "manifest.csv"
    )
    print(f"{len(names)} images without labels")


def copied(path: Path, folder: Path, name: str) -> str:
    target = folder / f"{name}{path.suffix}"
    shutil.copyfile(path, target)
    read_image(target)
    return target.name


def tiles(path: Path, folder: Path) -> list[str]:
    names = []
    with open_slide(path) as slide:
        width, height = slide.dimensions
        for top in range(0, height - TILE_PX + 1, TILE_PX):
            for left in range(0, width - TILE_PX + 1, TILE_PX):
                pixels = np.asarray(
                    slide.read_level(0, (left, top), (TILE_PX, TILE_PX)).convert("RGB")
                )
                if pixels.std(axis=(0, 1)).mean() > LEAST_SPREAD:
                    names.append(f"{path.stem}-{left}-{top}.png")
                    Image.fromarray(pixels).save(folder / names[-1])
    return names


if __name__ == "__main__":
    main()
