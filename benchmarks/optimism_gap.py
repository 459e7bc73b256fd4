"""Overestimated accuracy when images are copied before a split by image.

    OMP_NUM_THREADS=2 python benchmarks/optimism_gap.py --folder DIR [--weights RUN]

On real colon fields (GlaS) and on a synthetic cohort, the same network with the same budget twice.
Biased: every image is copied (rotated, noised, mixed), and then images and copies are assigned to
training and test at random. Correct: patients are assigned, and then only the training images are
copied, to the same number. Repeated over several splits; results in DIR are reused.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import Manifest, read_manifest, write_manifest
from glomerulab.cohort.splits import split_by_image, split_by_patient
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.pipeline.augment import augment_manifest
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train
from starts import REAL_DATA, read_glas

RATIOS = (8.0, 0.0, 2.0)
COPIES = 5  # images in the end, for each image there is
KINDS = {"by image, copies first": False, "by patient, copies last": True}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    parser.add_argument("--model", default="improved_seresnet50")
    parser.add_argument("--weights", help="start, such as a run of `glomerulab distill`")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    cohorts = {"GlaS (real)": read_glas(args.data), "phantom (synthetic)": phantom(args)}
    print("| cohort | " + " | ".join(KINDS) + " | gap, mean (each split) |\n|---|---|---|---|")
    for name, cohort in cohorts.items():
        scores = {
            kind: np.array(
                [accuracy(cohort, args, honest=honest, seed=s) for s in range(args.splits)]
            )
            for kind, honest in KINDS.items()
        }
        flattering, honest_scores = scores.values()
        gaps = flattering - honest_scores
        each = ", ".join(f"{gap:+.3f}" for gap in gaps)
        print(
            f"| {name} | {flattering.mean():.3f} | {honest_scores.mean():.3f} "
            f"| {gaps.mean():+.3f} ({each}) |",
            flush=True,
        )


def phantom(args: argparse.Namespace) -> Manifest:
    """Return 160 synthetic crops of 16 patients: as many as in GlaS."""
    folder = args.folder / "phantom"
    path = folder / "manifest.csv"
    if not path.is_file():
        write_phantom_crops(
            folder, n_patients=16, n_per_patient=10, seed=5, size=256, mpp=1.0, n_workers=2
        )
    manifest = read_manifest(path)
    one_class = (manifest.labels() == 1).sum(axis=1) == 1
    return manifest.with_table(manifest.table[one_class])


def accuracy(cohort: Manifest, args: argparse.Namespace, *, honest: bool, seed: int) -> float:
    place = args.folder / f"{cohort.taxonomy.name}-{'patient' if honest else 'image'}-{seed}"
    dealt = place / "split.csv"
    if not dealt.is_file():
        place.mkdir(parents=True, exist_ok=True)
        make = copied_last if honest else copied_first
        write_manifest(make(absolute(cohort), place, seed), dealt)
    config = TrainConfig.model_validate(
        {
            "manifest": dealt,
            "out": place / "run",
            "epochs": args.epochs,
            "keep": "last",
            "seed": seed,
            "augmentation": None,
            "allow_image_level_split": not honest,
            "model": {"name": args.model, "input_size": args.size},
            "start": {"weights": args.weights},
            "optimizer": {"learning_rate": args.learning_rate, "weight_decay": 1e-4},
            "schedule": {"kind": "cosine", "n_warmup": 1},
        }
    )
    table = pd.read_csv(train(config, resume=True) / "predictions.csv")
    test = table[table["split"] == "test"]
    truth, called = (
        test[[name for name in test if name.startswith(prefix)]].to_numpy().argmax(axis=1)
        for prefix in ("label_", "probability_")
    )
    return float((truth == called).mean())


def copied_first(cohort: Manifest, place: Path, seed: int) -> Manifest:
    everything = cohort.with_table(cohort.table.assign(split="train"))
    table = copies(everything, place, seed).table
    # This protocol does not record the original of a copy.
    table = table.assign(parent_id=pd.NA, partner_id=pd.NA, augmentation=pd.NA, split=pd.NA)
    return split_by_image(everything.with_table(table), ratios=RATIOS, seed=seed)


def copied_last(cohort: Manifest, place: Path, seed: int) -> Manifest:
    return copies(split_by_patient(cohort, ratios=RATIOS, seed=seed), place, seed)


def copies(manifest: Manifest, place: Path, seed: int) -> Manifest:
    n_training = int((manifest.table["split"] == "train").sum())
    made = augment_manifest(manifest, place, to=COPIES * n_training, seed=seed, n_workers=2)
    return made.manifest


def absolute(cohort: Manifest) -> Manifest:
    paths = [str(path.absolute()) for path in cohort.image_paths()]
    return cohort.with_table(cohort.table.assign(image_path=paths))


if __name__ == "__main__":
    main()
