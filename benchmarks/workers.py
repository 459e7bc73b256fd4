"""Training with 0, 1 and 2 processes that load images: seconds in all, and per epoch.

Run: ``OMP_NUM_THREADS=2 python benchmarks/workers.py [MODEL [INPUT_SIZE]]`` with real images under
GLOMERULAB_REAL_DATA (default ``../shared/data``). Prints a Markdown table. The numbers of workers
alternate, so that a busy machine slows all; the best round of each counts.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from glomerulab.cohort.manifest import write_manifest
from glomerulab.models.hardware import processor_name
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train
from training import real_crops

N_EPOCHS, N_ROUNDS, WORKERS = 6, 1, (0, 1, 2)


def seconds(config: TrainConfig) -> tuple[float, list[float]]:
    """Return the time of a training, and of each of its epochs."""
    start = time.perf_counter()
    ends: list[float] = []
    train(config, on_epoch=lambda _: ends.append(time.perf_counter()))
    total = time.perf_counter() - start
    return total, [end - begin for begin, end in zip([start, *ends], ends, strict=False)]


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "improved_seresnet_small"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    folder = Path(tempfile.mkdtemp())
    manifest = real_crops(folder)
    parts = np.where(np.arange(len(manifest.table)) % 4 < 3, "train", "validation")
    patients = [f"p{number}" for number in range(len(parts))]
    table = manifest.table.assign(split=pd.array(parts, dtype="string"), patient_id=patients)
    write_manifest(manifest.with_table(table), folder / "manifest.csv")
    found: dict[int, list[tuple[float, list[float]]]] = {n: [] for n in WORKERS}
    for number in range(N_ROUNDS):
        for n_workers in WORKERS:
            config = TrainConfig.model_validate(
                {
                    "manifest": folder / "manifest.csv",
                    "out": folder / f"run-{n_workers}-{number}",
                    "epochs": N_EPOCHS,
                    "n_workers": n_workers,
                    "model": {"name": name, "input_size": size},
                }
            )
            found[n_workers].append(seconds(config))
    print(f"{processor_name()}, {torch.get_num_threads()} threads, {name}, {size} px")
    print(f"{len(parts)} JPEGs of 512 px, {N_EPOCHS} epochs\n")
    print("| n_workers | training, s | first epoch, s | a later epoch, s |\n|---|---|---|---|")
    for n_workers, rounds in found.items():
        total = min(total for total, _ in rounds)
        first = min(epochs[0] for _, epochs in rounds)
        later = min(min(epochs[1:]) for _, epochs in rounds)
        print(f"| {n_workers} | {total:.1f} | {first:.1f} | {later:.2f} |")


if __name__ == "__main__":
    main()
