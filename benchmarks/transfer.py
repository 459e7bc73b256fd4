"""Gain of the improved network from a ResNet-34 trained on phantoms, by separable pairs.

    python benchmarks/transfer.py --folder DIR [--seeds 3]

All images are synthetic. A ResNet-34 is trained on one phantom cohort; then improved networks are
trained on another, from random weights and from the ResNet-34, with and without batch norm and ReLU
inside the pairs. Prints the validation accuracy after each epoch, mean over the seeds, and the
share of the kernels that the pairs keep. Results in DIR are reused.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.cohort.splits import split_by_patient
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--source-epochs", type=int, default=10)
    args = parser.parse_args()
    source_cohort = cohort(args.folder / "source", n_patients=30, seed=1)
    target_cohort = cohort(args.folder / "target", n_patients=18, seed=2)
    source = run_of(
        args, source_cohort, "resnet34", model="timm:resnet34", epochs=args.source_epochs
    )
    rows: dict[str, np.ndarray] = {}
    for inside in (True, False):
        for weights in (None, source):
            name = f"{'ReLU inside' if inside else 'plain pairs'}, "
            name += "random" if weights is None else "from ResNet-34"
            runs = [
                run_of(
                    args,
                    target_cohort,
                    f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
                    model="improved_seresnet50",
                    epochs=args.epochs,
                    seed=seed,
                    weights=weights,
                    options={"activation_inside_pair": inside},
                )
                for seed in range(args.seeds)
            ]
            curves = [pd.read_csv(run / "history.csv")["validation_accuracy"] for run in runs]
            rows[name] = np.mean(curves, axis=0)
            if weights is not None and inside:
                tell_energies(runs[0])
    print(f"\n| pairs, start | {' | '.join(f'epoch {e + 1}' for e in range(args.epochs))} |")
    print("|---|" + "---|" * args.epochs)
    for name, curve in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in curve) + " |")


def cohort(folder: Path, *, n_patients: int, seed: int) -> Path:
    """Render crops of 128 px at 2 µm and split them by patient."""
    path = folder / "split.csv"
    if not path.is_file():
        manifest = write_phantom_crops(
            folder, n_patients=n_patients, n_per_patient=10, seed=seed, size=128, mpp=2.0
        )
        write_manifest(split_by_patient(read_manifest(manifest), ratios=(6, 4, 0)), path)
    return path


def run_of(
    args: argparse.Namespace,
    manifest: Path,
    name: str,
    *,
    model: str,
    epochs: int,
    seed: int = 0,
    weights: Path | None = None,
    options: dict[str, object] | None = None,
) -> Path:
    config = TrainConfig.model_validate(
        {
            "manifest": manifest,
            "out": args.folder / name,
            "epochs": epochs,
            "seed": seed,
            "model": {"name": model, "input_size": args.size, "options": options or {}},
            "start": {"weights": None if weights is None else str(weights)},
            "optimizer": {"learning_rate": 1e-3, "weight_decay": 1e-4},
            "schedule": {"kind": "cosine", "n_warmup": 1},
        }
    )
    run = train(config, resume=True)
    last = pd.read_csv(run / "history.csv").iloc[-1]
    print(f"{name}: validation accuracy {last['validation_accuracy']:.3f}", flush=True)
    return run


def tell_energies(run: Path) -> None:
    pairs = json.loads((run / "start.json").read_text(encoding="utf-8"))["energies"]
    kept = [pair["energy"] for pair in pairs]
    print(f"kernels kept: {min(kept):.1%} to {max(kept):.1%}, mean {np.mean(kept):.1%}")


if __name__ == "__main__":
    main()
