"""How well an image of another stain than the stated one is recognised, on real images.

Run: ``python benchmarks/stain_identity.py`` prints Markdown tables; with ``--write`` it also
writes ``src/glomerulab/stain/signatures.json``, the table that the package ships. Reads all sets of
the folder GLOMERULAB_REAL_DATA (default ``../shared/data``); slides are cut into tiles of 512 px
and the patches of ``eleven_stains`` into tiles of 250 px.

Each set is judged by signatures of the other sets: a set is a centre or a slide, and a source image
where the data name one. Stains weigh the same, and within a stain a data set weighs as the square
root of its number of images.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.geometry import Box
from glomerulab.images import RgbImage, read_image
from glomerulab.slides.slide import open_slide
from glomerulab.stain.fitting import FitFailure, try_fit
from glomerulab.stain.identity import (
    SIGNATURE_NAMES,
    Signatures,
    looks_like,
    shipped_signatures,
    signature,
)
from glomerulab.stain.optical_density import FloatArray, estimate_white, find_tissue
from glomerulab.stain.reference import STAIN_PRIORS

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
TARGET = Path(__file__).parents[1] / "src" / "glomerulab" / "stain" / "signatures.json"
STAINS = tuple(STAIN_PRIORS)
ELEVEN = {"he": "HE", "pas": "PAS", "jones": "PASM", "sirius_red": "Sirius red"}
MIN_TISSUE_SHARE = 0.02
RIDGE = 0.05  # of the variance pooled over stains, added to each variance


@dataclass(frozen=True)
class Item:
    """An image, its true stain, the data it belongs to, and the set that is left out with it."""

    data: str
    unit: str
    stain: str
    image: RgbImage


def items() -> Iterator[Item]:
    """Yield every image of a known stain."""
    yield from kidney_items()
    yield from other_items()
    yield from slide_items()


def kidney_items() -> Iterator[Item]:
    """Yield images of kidney."""
    folder = REAL_DATA / "kidney_compartments"
    for row in pd.read_csv(folder / "labels.csv").itertuples():
        stain = {"SIL": "PASM"}.get(str(row.stain), str(row.stain))
        yield Item("kidney", f"kidney {row.source_image}", stain, read_image(folder / row.image))
    for path in sorted((REAL_DATA / "eleven_stains").glob("*.jpg")):
        image, stain = read_image(path), ELEVEN.get(path.stem, "H-DAB")
        for y in range(0, 1000, 250):
            for x in range(0, 1000, 250):
                tile = np.ascontiguousarray(image[y : y + 250, x : x + 250])
                yield Item("eleven stains", f"eleven {path.stem}", stain, tile)
    folder = REAL_DATA / "aidpath_glomeruli"
    for row in pd.read_csv(folder / "labels.csv").itertuples():
        image = read_image(folder / "images" / Path(row.image).name)
        yield Item("AIDPATH", f"AIDPATH {row.centre}", "PAS", image)
    for path in sorted((REAL_DATA / "aidpath_fields" / "images").iterdir()):
        yield Item("AIDPATH", "AIDPATH fields", "PAS", read_image(path))


def other_items() -> Iterator[Item]:
    """Yield images of other organs."""
    for path in sorted((REAL_DATA / "glas_colon_he" / "images").iterdir()):
        yield Item("GlaS colon", "GlaS", "HE", read_image(path))
    for path in sorted((REAL_DATA / "stain").iterdir()):
        if path.suffix in {".png", ".tif"}:
            stain = "H-DAB" if "ihc" in path.name else "HE"
            yield Item("single fields", path.name, stain, read_image(path))


def slide_items() -> Iterator[Item]:
    """Yield tiles of two slides."""
    for name in ("CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"):
        with open_slide(REAL_DATA / "slides" / name, mpp_override=0.5) as slide:
            width, height = slide.dimensions
            for y in range(0, height - 511, 512):
                for x in range(0, width - 511, 512):
                    yield Item(name[:4], name, "HE", slide.read_region(Box(x, y, 512, 512)))


def measured() -> pd.DataFrame:
    """Return one row per image: signature, and the outcome of the other tests by stated stain."""
    rows = []
    for item in items():
        tissue = find_tissue(item.image, estimate_white(item.image))
        share = tissue.density.shape[1] / (item.image.shape[0] * item.image.shape[1])
        if share < MIN_TISSUE_SHARE and item.image.shape[0] * item.image.shape[1] < 1 << 19:
            continue
        found = {s: try_fit(item.image, s, check_stain=False) for s in STAINS}
        fitted = [one for one in found.values() if not isinstance(one, FitFailure)]
        row = {"data": item.data, "unit": item.unit, "stain": item.stain}
        row |= {f"fails_{s}": isinstance(one, FitFailure) for s, one in found.items()}
        if fitted:
            values = signature(tissue.density, fitted[0].stain_matrix, fitted[0].percentiles)
            row |= dict(zip(SIGNATURE_NAMES, values, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def fitted_signatures(table: pd.DataFrame) -> Signatures:
    """Return the weighted mean and covariance of each stain that the table holds."""
    table = table[table["stain"].isin(STAINS)].dropna()
    weights = table.groupby(["stain", "data"])["unit"].transform("size") ** -0.5
    means: dict[str, FloatArray] = {}
    spreads: dict[str, FloatArray] = {}
    for stain, rows in table.groupby("stain"):
        values = rows[list(SIGNATURE_NAMES)].to_numpy()
        share = weights[rows.index].to_numpy() / weights[rows.index].sum()
        means[str(stain)] = share @ values
        offset = values - means[str(stain)]
        spreads[str(stain)] = (offset * share[:, np.newaxis]).T @ offset
    pooled = np.mean([np.diag(one) for one in spreads.values()], axis=0)
    ridge = RIDGE * np.diag(pooled)
    return Signatures(means, {stain: one + ridge for stain, one in spreads.items()})


def judge(table: pd.DataFrame, signatures: Signatures) -> pd.DataFrame:
    """Return for each image and stated stain whether it is refused."""
    refused = {}
    for stain in STAINS:
        refused[stain] = [
            bool(row[f"fails_{stain}"])
            or looks_like(row[list(SIGNATURE_NAMES)].to_numpy(np.float64), stain, signatures)
            is not None
            for _, row in table.iterrows()
        ]
    return pd.DataFrame(refused, index=table.index)


def left_out(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Judge each set by the signatures of the others."""
    parts = [
        judge(rows, fitted_signatures(table[table[column] != name]))
        for name, rows in table.groupby(column)
    ]
    return pd.concat(parts).loc[table.index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Write the table that is shipped.")
    write = parser.parse_args().write
    table = measured()
    if write:
        write_signatures(fitted_signatures(table))
        shipped_signatures.cache_clear()
    outcomes = {
        "before (fit alone)": pd.DataFrame({s: table[f"fails_{s}"] for s in STAINS}),
        "set left out": left_out(table, "unit"),
        "shipped": judge(table, shipped_signatures()),
    }
    print("\nFalse alarms: images of the stated stain that are refused\n")
    print("| stain | data | images | " + " | ".join(outcomes) + " |")
    print("|---|---|---" + "|---" * len(outcomes) + "|")
    known = table["stain"].isin(STAINS)
    for (stain, data), rows in table[known].groupby(["stain", "data"]):
        shares = [f"{one.loc[rows.index, stain].mean():.1%}" for one in outcomes.values()]
        print(f"| {stain} | {data} | {len(rows)} | " + " | ".join(shares) + " |")
    own = [
        np.mean([one.loc[i, s] for i, s in table.loc[known, "stain"].items()])
        for one in outcomes.values()
    ]
    print(f"| all | | {known.sum()} | " + " | ".join(f"{x:.1%}" for x in own) + " |")
    print("\nCaught: images of another stain that are refused, by true and stated stain\n")
    print("| true | images | outcome | " + " | ".join(f"as {s}" for s in STAINS) + " |")
    print("|---|---|---" + "|---" * len(STAINS) + "|")
    for stain, rows in table.groupby("stain"):
        for name, one in outcomes.items():
            shares = ["" if s == stain else f"{one.loc[rows.index, s].mean():.1%}" for s in STAINS]
            print(f"| {stain} | {len(rows)} | {name} | " + " | ".join(shares) + " |")


def write_signatures(signatures: Signatures) -> None:
    """Write the table that the package reads."""
    content = {
        "source": "benchmarks/stain_identity.py --write",
        "names": list(SIGNATURE_NAMES),
        "stains": {
            stain: {
                "mean": np.round(signatures.means[stain], 4).tolist(),
                "covariance": np.round(signatures.covariances[stain], 5).tolist(),
            }
            for stain in STAINS
        },
    }
    TARGET.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
