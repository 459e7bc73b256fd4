"""How well images unlike the training images are told: phantom fields, and real kidney apart.

    glomerulab quickstart --out quickstart
    python benchmarks/unlike_training.py quickstart [--kidney FOLDER]

Synthetic glomeruli of held-out patients stand against tubule fields and empty glass cut from the
same slides. Real patches are reported apart: the network saw none of that kind in training.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from glomerulab.cohort.manifest import read_manifest
from glomerulab.geometry import Box
from glomerulab.images import read_image
from glomerulab.inference.engine import probabilities_of, stacked
from glomerulab.inference.gates import class_distances, read_gates
from glomerulab.inference.torch_engine import TorchEngine
from glomerulab.models.parts import features_seen
from glomerulab.slides.regions import read_regions
from glomerulab.slides.source import open_slide
from glomerulab.stain.normalize import normalize
from glomerulab.stain.reference import read_reference
from glomerulab.stain.tissue import tissue_mask

SIDE, N_TUBULES, N_EMPTY = 200, 8, 4


def see(engine, images):
    """Return logits, mean maps of the last stage, and the vector of the classifier."""
    found, vectors = [], []
    with features_seen(engine.network.model) as seen:
        for start in range(0, len(images), 32):
            batch = stacked(images[start : start + 32], engine.card.input_size)
            found.append(engine.answer(batch))
        vectors = np.concatenate([one.numpy() for one in seen])
    return (
        np.concatenate([one.logits for one in found]),
        np.concatenate([one.features for one in found]),
        vectors,
    )


def fields(home, slides, references):
    """Cut tubule fields and empty glass from slides, normalised as their crops are."""
    rng = np.random.default_rng(0)
    tubules, empty = [], []
    for row in slides.itertuples():
        regions = read_regions(home / "phantom" / "regions" / f"{row.slide_id}.geojson")
        boxes = [region.box() for region in regions]
        source = read_reference(home / "normalized" / "slides" / f"{row.slide_id}.{row.stain}.json")
        with open_slide(home / "phantom" / row.slide_path) as slide:
            width, height = slide.dimensions
            here, glass = [], []
            for _ in range(3000):
                x, y = int(rng.integers(width - SIDE)), int(rng.integers(height - SIDE))
                box = Box(x, y, SIDE, SIDE)
                if any(box.intersection_area(b) > 0.05 * b.width * b.height for b in boxes):
                    continue
                pixels = slide.read_region(box, mpp=slide.mpp)
                share = tissue_mask(pixels, np.array(slide.white, dtype=float)).mean()
                shown = normalize(pixels, references[row.stain], source=source).image
                if share > 0.8 and len(here) < N_TUBULES:
                    here.append(shown)
                if share < 0.02 and len(glass) < N_EMPTY:
                    glass.append(shown)
            tubules += here
            empty += glass
    return {"phantom tubules": tubules, "phantom empty glass": empty}


def kidney(folder, references):
    """Read the real HE and PAS patches by class."""
    table = pd.read_csv(folder / "labels.csv")
    table = table[table["stain"].isin(list(references))]
    return {
        f"real {name}": [
            normalize(read_image(folder / row.image), references[row.stain]).image
            for row in rows.itertuples()
        ]
        for name, rows in table.groupby("class")
    }


def mahalanobis(train, classes):
    means = np.stack([train[classes == one].mean(axis=0) for one in np.unique(classes)])
    spread = LedoitWolf(assume_centered=True).fit(train - means[classes])
    root = np.linalg.cholesky(spread.precision_)
    return lambda rows: class_distances(rows, means, root)


def neighbours(train):
    scale = train.std(axis=0) + 1e-6
    return lambda rows: np.sort(np.linalg.norm((rows[:, None] - train[None]) / scale, axis=2))[:, 4]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("quickstart", type=Path)
    parser.add_argument("--kidney", type=Path)
    arguments = parser.parse_args()
    home = arguments.quickstart
    engine, gates = TorchEngine(home / "run"), read_gates(home / "run")
    manifest = read_manifest(home / "run" / "manifest.csv")
    table = manifest.table
    original = table["parent_id"].isna().to_numpy()
    parts = {
        name: [
            read_image(path)
            for path, inside in zip(
                manifest.image_paths(), original & (table["split"] == name).to_numpy(), strict=True
            )
            if inside
        ]
        for name in ("train", "test")
    }
    training = table[original & (table["split"] == "train").to_numpy()]
    classes = training[list(engine.card.taxonomy.label_ids)].to_numpy(float).argmax(axis=1)
    slides = pd.read_csv(home / "phantom" / "slides.csv")
    held_out = set(table.loc[(table["split"] == "test").to_numpy(), "slide_id"])
    foreign = fields(home, slides[slides["slide_id"].isin(held_out)], gates.references)
    if arguments.kidney:
        foreign |= kidney(arguments.kidney, gates.references)
    seen = {name: see(engine, images) for name, images in (parts | foreign).items() if images}
    ways = {
        "last maps, Mahalanobis (the gate)": (1, gates.distances),
        "classifier's vector, Mahalanobis": (2, mahalanobis(seen["train"][2], classes)),
        "last maps, 5th neighbour": (1, neighbours(seen["train"][1])),
        "1 - highest probability": (
            0, lambda logits: 1 - probabilities_of(logits, engine.card.head).max(axis=1),
        ),
    }  # fmt: skip
    limit = gates.facts.distance_threshold
    print(f"{len(parts['train'])} training, {len(parts['test'])} held-out glomeruli (synthetic)")
    print(f"held-out glomeruli referred: {(gates.distances(seen['test'][1]) > limit).mean():.1%}")
    for name in foreign:
        print(f"\n{name}, n = {len(foreign[name])}")
        print(f"  referred by the gate: {(gates.distances(seen[name][1]) > limit).mean():.0%}")
        for way, (place, score) in ways.items():
            known, other = score(seen["test"][place]), score(seen[name][place])
            truth = [0] * len(known) + [1] * len(other)
            print(f"  AUROC {roc_auc_score(truth, np.concatenate([known, other])):.2f}  {way}")


if __name__ == "__main__":
    main()
