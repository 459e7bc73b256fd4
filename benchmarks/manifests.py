"""Time and memory of `split` and `manifest check` on large manifests, and of reading columns.

Run: ``PYTHONPATH=src python benchmarks/manifests.py [--rows 1000000] [--many 10000000]``. Writes
manifests of crops of 40 images per patient as CSV and Parquet, with links to one image in place of
the images, and prints a Markdown table: seconds and peak of each command in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.images import write_image
from glomerulab.taxonomy import load_taxonomy

N_PER_PATIENT = 40
N_PER_FOLDER = 1000
N_AT_ONCE = 1_000_000
READ_COLUMNS = """
import sys
from glomerulab import read_manifest
table = read_manifest(sys.argv[1], columns=["patient_id", "split"]).table
print(table.groupby("split")["patient_id"].nunique())
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--many", type=int, default=10_000_000, help="rows of which columns are read"
    )
    arguments = parser.parse_args()
    print("| command | rows | s, CPU | s, wall | peak MiB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n = arguments.rows
        manifest = cohort(folder, n)
        link_images(manifest)
        for suffix in ("parquet", "csv"):
            path = folder / f"manifest.{suffix}"
            write_manifest(manifest, path)
            out = folder / f"split.{suffix}"
            split = ["split", str(path), "--out", str(out), "--no-near-duplicates"]
            report(f"split, {suffix}", n, "-m", "glomerulab", *split)
            report(f"split --folds 5, {suffix}", n, "-m", "glomerulab", *split, "--folds", "5")
            check = ["manifest", "check", str(out), "--no-pixels"]
            report(f"manifest check --no-pixels, {suffix}", n, "-m", "glomerulab", *check)
        path = folder / "many.parquet"
        write_many(path, arguments.many)
        report("read_manifest, two columns, parquet", arguments.many, "-c", READ_COLUMNS, str(path))


def write_many(path: Path, n: int) -> None:
    """Write a manifest of many rows in pieces, each of other patients."""
    writer = None
    for first in range(0, n, N_AT_ONCE):
        table = cohort(path.parent, min(N_AT_ONCE, n - first), first).table
        piece = pa.Table.from_pandas(table.assign(split="train"), preserve_index=False)
        writer = writer or pq.ParquetWriter(path, piece.schema)
        writer.write_table(piece)
    assert writer is not None
    writer.close()


def cohort(folder: Path, n: int, first: int = 0) -> Manifest:
    rng = np.random.default_rng(first)
    taxonomy = load_taxonomy("paper")
    rows = np.arange(first, first + n)
    patient = rows // N_PER_PATIENT
    stains = np.array(["HE", "PAS", "PASM", "TRI"])
    label = rng.integers(0, len(taxonomy.label_ids), n)
    table = pd.DataFrame(
        {
            "image_id": pd.array(
                [f"case{p:06d}_{row:08d}" for row, p in zip(rows, patient, strict=True)]
            ),
            "image_path": pd.array([f"images/{row // N_PER_FOLDER}/{row}.png" for row in rows]),
            "patient_id": pd.array([f"P{p:06d}" for p in patient]),
            "slide_id": pd.array([f"S{p:06d}" for p in patient]),
            "stain": pd.array(stains[patient % 4]),
            "mpp": 0.5,
            "x": rng.integers(0, 100_000, n),
            "y": rng.integers(0, 100_000, n),
            "width": 256,
            "height": 256,
        }
        | {name: (label == place).astype(np.int8) for place, name in enumerate(taxonomy.label_ids)}
    )
    return Manifest(table, folder, taxonomy)


def link_images(manifest: Manifest) -> None:
    image = manifest.folder
    for row, path in enumerate(manifest.image_paths()):
        if row % N_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if row % 10_000 == 0:  # file systems limit the links to one file
            image = path
            write_image(np.zeros((8, 8, 3), np.uint8), image)
        else:
            os.link(image, path)


def report(name: str, n: int, *command: str) -> None:
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    assert process.returncode == 0, command
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"| {name} | {n:,} | {cpu:.1f} | {wall:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
