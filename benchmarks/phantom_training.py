"""The improved network on a synthetic cohort of four classes, split by patient, with both heads.

    OMP_NUM_THREADS=2 python benchmarks/phantom_training.py --folder DIR

1,200 synthetic crops, a tenth of them with crescent and sclerosis at once. Both heads are trained
on all training crops. Accuracy is that of the softmax head on test crops of one class, as in the
paper; then, for each head, the share of crops with crescent and sclerosis both correct, where
neither, one, or both are present. Results in DIR are reused.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from glomerulab.cohort.manifest import Manifest, read_manifest, write_manifest
from glomerulab.cohort.splits import split_by_patient
from glomerulab.evaluation.intervals import patient_weights, percentile_interval
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train

LESIONS = ("fsg", "cgn")
SETS = {"sclerosis only": (1, 0), "crescent only": (0, 1), "both": (1, 1), "neither": (0, 0)}
HALF = 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="improved_seresnet50")
    parser.add_argument("--weights", help="start, such as a run of `glomerulab distill`")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    folder = args.folder / "cohort"
    path = folder / "split.csv"
    if not path.is_file():
        made = write_phantom_crops(
            folder,
            n_patients=args.patients,
            n_per_patient=20,
            seed=7,
            size=256,
            mpp=1.0,
            n_workers=2,
        )
        write_manifest(split_by_patient(read_manifest(made), ratios=(6, 2, 2)), path)
    manifest = read_manifest(path)
    print(f"synthetic: {len(manifest.table)} crops of {args.patients} patients")
    tables = {head: predictions(args, path, head) for head in ("softmax", "sigmoid")}
    tell_accuracy(tables["softmax"], manifest)
    tell_sets(tables)


def predictions(args: argparse.Namespace, manifest: Path, head: str) -> pd.DataFrame:
    start = Path(args.weights).stem if args.weights else "random"
    config = TrainConfig.model_validate(
        {
            "manifest": manifest,
            "epochs": args.epochs,
            "label_smoothing": 0.05,
            "out": args.folder / f"{args.model}-{start}-{head}",
            "model": {"name": args.model, "input_size": args.size, "head": head},
            "start": {"weights": args.weights},
            "optimizer": {"learning_rate": args.learning_rate, "weight_decay": 1e-4},
            "schedule": {"kind": "cosine", "n_warmup": 1},
        }
    )
    run = train(config, resume=True)
    table = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    history = pd.read_csv(run / "history.csv")
    seconds = (table["split"] == "train").sum() / history["images_per_second"]
    print(f"{run.name}: {torch.get_num_threads()} threads, {seconds.sum() / 60:.1f} min of steps")
    return table[table["split"] == "test"]


def tell_accuracy(test: pd.DataFrame, manifest: Manifest) -> None:
    names = list(manifest.taxonomy.label_ids)
    labels = test[[f"label_{name}" for name in names]].to_numpy()
    test, labels = test[labels.sum(axis=1) == 1], labels[labels.sum(axis=1) == 1]
    truth = labels.argmax(axis=1)
    called = test[[f"probability_{name}" for name in names]].to_numpy().argmax(axis=1)
    right = (truth == called).astype(np.float64)
    print("\n| synthetic test crops of one class | accuracy | 95 % interval |\n|---|---|---|")
    print(f"| {len(test)} crops, {over_patients(right, test)} |")
    for place, name in enumerate(names):
        ours = truth == place
        print(f"|   {name}, {ours.sum()} crops | {right[ours].mean():.3f} | |")


def over_patients(right: npt.NDArray[np.float64], test: pd.DataFrame) -> str:
    _, numbers = np.unique(test["patient_id"], return_inverse=True)
    weights = patient_weights(numbers.max() + 1, n_resamples=2000, seed=0)  # (R, P)
    n_right, n_all = np.bincount(numbers, right), np.bincount(numbers)
    interval = percentile_interval((weights @ n_right) / (weights @ n_all))
    return f"{n_all.size} patients | {right.mean():.3f} | {interval.low:.3f} to {interval.high:.3f}"


def tell_sets(tables: dict[str, pd.DataFrame]) -> None:
    """Print the share of crops with crescent and sclerosis both correct, for each true set."""
    print(
        "\n| both labels right, of synthetic test crops with | softmax | sigmoid |\n|---|---|---|"
    )
    for name, wanted in SETS.items():
        cells = []
        for head in ("softmax", "sigmoid"):
            test = tables[head]
            truth = test[[f"label_{lesion}" for lesion in LESIONS]].to_numpy()
            ours = (truth == wanted).all(axis=1)
            found = called_lesions(test, head)[ours]
            cells.append(f"{(found == wanted).all(axis=1).mean():.3f} of {ours.sum()}")
        print(f"| {name} | {' | '.join(cells)} |")


def called_lesions(test: pd.DataFrame, head: str) -> npt.NDArray[np.bool_]:
    """Call the most probable class (softmax) or every label above one half (sigmoid)."""
    columns = [name for name in test.columns if name.startswith("probability_")]
    probability = test[columns].to_numpy()
    if head == "softmax":
        called = probability == probability.max(axis=1, keepdims=True)
    else:
        called = probability > HALF
    return called[:, [columns.index(f"probability_{lesion}") for lesion in LESIONS]]


if __name__ == "__main__":
    main()
