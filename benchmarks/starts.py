"""Any network and start on real images, in folds by patient, within a time budget.

    GLOMERULAB_REAL_DATA=... python benchmarks/starts.py --task glas --model improved_seresnet50 \
        --weights RUN --size 128 --minutes 30 --out starts.csv

Tasks: `glas` (colon fields, benign or malignant, folds by patient), `structure` and `stain` of
kidney patches (folds by the image a patch was cut from; their magnification differs by structure,
so the first is partly a task of scale). One row per fold in the CSV; an existing fold is not
trained again. At the end it prints the accuracy over all images, each predicted by the fold that
was not trained on its patient, with an interval over patients. `--minutes` is for all folds
together: a first epoch is timed, and the number of epochs follows. `--model frozen` trains no
network: it takes the features of the ResNet50 in `--weights` (or of the improved network, where
that is a run) through its second stage, averaged over each image, and a logistic regression.
"""

import argparse
import csv
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glomerulab.cohort.manifest import Manifest, manifest_from_rows, write_manifest
from glomerulab.cohort.splits import assign_folds
from glomerulab.evaluation.intervals import patient_weights, percentile_interval
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import load_matching
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import CropDataset
from glomerulab.training.run import train

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("GLOMERULAB_REAL_DATA", "../shared/data"))
SHARE_OF_BUDGET = 0.9  # the rest is for reading, measuring norms and evaluation


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    folded = assign_folds(TASKS[args.task](args.data), n_folds=args.folds, seed=args.seed)
    done = {int(row["fold"]) for row in rows_of(args)}
    for fold in sorted(folded.table["fold"].unique()):
        if int(fold) not in done:
            judge_fold(folded, int(fold), args)
    summarise(args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=TASKS, default="glas")
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of this setting in the CSV; by default model and weights")
    parser.add_argument("--model", default="improved_seresnet50")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the network")
    parser.add_argument("--weights")
    parser.add_argument("--frozen-share", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of a budget")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    start = Path(args.weights).stem if args.weights else "random"
    args.name = (
        args.name or f"{args.task}: {args.model} from {start}, {args.size} px, seed {args.seed}"
    )
    return args


def read_glas(data: Path) -> Manifest:
    names = ("benign", "malignant")
    taxonomy = load_taxonomy(ROOT / "configs" / "taxonomies" / "glas.toml")
    folder = data / "glas_colon_he"
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    rows = pd.DataFrame(
        {"image_id": table["image"], "image_path": "images/" + table["image"], "stain": "HE"}
        | {"patient_id": table["patient_id"]}
        | {name: (table["label"] == name).astype(int) for name in names}
    )
    return manifest_from_rows(rows, folder=folder, taxonomy=taxonomy)


def read_kidney(data: Path, column: str) -> Manifest:
    """Return kidney patches with the values of a column as classes."""
    folder = data / "kidney_compartments"
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    names = sorted(table[column].unique())
    ids = [name.lower() for name in names]
    taxonomy = Taxonomy(
        column, tuple(Label(id=id_, name=name) for id_, name in zip(ids, names, strict=True))
    )
    rows = pd.DataFrame(
        {"image_id": table["image"], "image_path": table["image"], "stain": "other"}
        | {"patient_id": table["source_image"]}
        | {id_: (table[column] == name).astype(int) for id_, name in zip(ids, names, strict=True)}
    )
    return manifest_from_rows(rows, folder=folder, taxonomy=taxonomy)


TASKS = {
    "glas": read_glas,
    "structure": partial(read_kidney, column="class"),
    "stain": partial(read_kidney, column="stain"),
}


def judge_fold(folded: Manifest, fold: int, args: argparse.Namespace) -> None:
    start = time.perf_counter()
    predict = frozen_features if args.model == "frozen" else trained
    probability, patients, truth, n_epochs = predict(folded, fold, args)  # (N, K), N, N
    seconds = time.perf_counter() - start
    right = probability.argmax(axis=1) == truth
    row = {
        "name": args.name,
        "fold": fold,
        "n_images": len(truth),
        "accuracy": right.mean(),
        "epochs": n_epochs,
        "seconds": round(seconds, 1),
        "threads": args.threads,
        "patients": " ".join(patients),
        "right": " ".join(str(int(one)) for one in right),
    }
    is_new = not args.out.is_file()
    with args.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(f"{args.name}: fold {fold}: {right.mean():.3f}, {n_epochs} epochs, {seconds:.0f} s")


def trained(
    folded: Manifest, fold: int, args: argparse.Namespace
) -> tuple[np.ndarray, list[str], np.ndarray, int]:
    """Train on the other folds, without a validation part: no choice depends on it."""
    table = folded.table.copy()
    table["split"] = np.where(table["fold"] == fold, "test", "train")
    table["image_path"] = [str(path) for path in folded.image_paths()]
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(folded.with_table(table), Path(folder) / "manifest.csv")
        n_epochs = args.epochs or epochs_within(Path(folder), args)
        run = train(configured(Path(folder), args, out="run", epochs=n_epochs), echo=print)
        predictions = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    test = predictions[predictions["split"] == "test"]
    probability, labels = (
        test[[f"{kind}_{name}" for name in folded.taxonomy.label_ids]].to_numpy()
        for kind in ("probability", "label")
    )
    return probability, list(test["patient_id"]), labels.argmax(axis=1), n_epochs


def epochs_within(folder: Path, args: argparse.Namespace) -> int:
    run = train(configured(folder, args, out="timed", epochs=1))
    row = pd.read_csv(run / "history.csv").iloc[-1]
    n_images = (pd.read_csv(folder / "manifest.csv")["split"] == "train").sum()
    seconds = 60.0 * args.minutes / args.folds * SHARE_OF_BUDGET
    per_epoch = n_images / row["images_per_second"]
    return max(1, int(seconds / per_epoch) - 1)


def configured(folder: Path, args: argparse.Namespace, *, out: str, epochs: int) -> TrainConfig:
    options = dict(option.split("=") for option in args.option)
    options = {key: {"true": True, "false": False}.get(v, v) for key, v in options.items()}
    return TrainConfig.model_validate(
        {
            "manifest": folder / "manifest.csv",
            "out": folder / out,
            "epochs": epochs,
            "seed": args.seed,
            "keep": "last",
            "label_smoothing": 0.05,
            "model": {"name": args.model, "input_size": args.size, "options": options},
            "start": {"weights": args.weights, "frozen_share": args.frozen_share},
            "optimizer": {"learning_rate": args.learning_rate, "weight_decay": 1e-4},
            "schedule": {"kind": "cosine", "n_warmup": 2},
        }
    )


def frozen_features(
    folded: Manifest, fold: int, args: argparse.Namespace
) -> tuple[np.ndarray, list[str], np.ndarray, int]:
    images = CropDataset(folded, input_size=args.size)
    network = leading_stages(args).eval()
    with torch.inference_mode():
        features = np.concatenate(
            [network(images[place][0][None]).mean((2, 3)).numpy() for place in range(len(images))]
        )
    truth = folded.labels().argmax(axis=1)
    inside = (folded.table["fold"] == fold).to_numpy(dtype=bool)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
    peer.fit(features[~inside], truth[~inside])
    patients = list(folded.table["patient_id"][inside])
    return peer.predict_proba(features[inside]), patients, truth[inside], 0


def leading_stages(args: argparse.Namespace) -> torch.nn.Module:
    """Return two stages of ResNet50, or of the improved network where a run is given."""
    if args.weights and Path(args.weights).is_dir():
        model, _ = load_checkpoint(Path(args.weights))
        reader = model.stages[2][0].norm1
        return torch.nn.Sequential(model.stem, *model.stages[:2], reader, torch.nn.ReLU())
    net = create_model("resnet50", 2, seed=args.seed)
    if args.weights:
        weights = read_weights(Path(args.weights), net).tensors
        load_matching(net, weights, input_size=64, leave=("fc",))
    return torch.nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool, net.layer1, net.layer2)


def rows_of(args: argparse.Namespace) -> list[dict[str, str]]:
    if not args.out.is_file():
        return []
    with args.out.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["name"] == args.name]


def summarise(args: argparse.Namespace) -> None:
    rows = rows_of(args)
    right = np.array([int(one) for row in rows for one in row["right"].split()])
    patients = np.array([one for row in rows for one in row["patients"].split()])
    names, numbers = np.unique(patients, return_inverse=True)
    weights = patient_weights(len(names), n_resamples=2000, seed=0)  # (R, P)
    n_right, n_all = np.bincount(numbers, right), np.bincount(numbers)
    interval = percentile_interval((weights @ n_right) / (weights @ n_all))
    seconds = sum(float(row["seconds"]) for row in rows)
    print(
        f"| {args.name} | {right.mean():.3f} | {interval.low:.3f} to {interval.high:.3f} "
        f"| {len(right)} images, {len(names)} patients | {seconds / 60:.1f} min |"
    )


if __name__ == "__main__":
    main()
