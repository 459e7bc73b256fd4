"""Detection of out-of-distribution and of blurred images, on synthetic and on real data.

    glomerulab quickstart --out quickstart
    glomerulab phantom --out fresh --slides --patients 16 --per-patient 8 --mpp 0.5 --seed 202
    python benchmarks/unlike_training.py synthetic quickstart --fresh fresh [--kidney FOLDER]
    glomerulab train configs/network.toml --manifest glas/manifest.csv --out run --set ...
    python benchmarks/unlike_training.py real run --kidney FOLDER

`synthetic`: glomeruli of held-out patients, and of a cohort from other scanners, against fields of
tubules and of glass from the same slides. Of the real kidney patches, complete glomeruli are
compared with fields of 90 px cut from the same patches beside every capsule: the patches of the
other classes have another magnification, and some of them show glomeruli. `real`: a network trained
on GlaS (colon), whose held-out images are compared with kidney.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import roc_auc_score

from glomerulab.cohort.manifest import read_manifest
from glomerulab.geometry import Box
from glomerulab.images import read_image
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.base import stack_images
from glomerulab.inference.engines.torch_engine import TorchEngine
from glomerulab.inference.fit_calibration import IN_DISTRIBUTION_SHARE
from glomerulab.inference.image_predictions import sharpness
from glomerulab.inference.ood import MahalanobisDetector
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide
from glomerulab.stain.fitting import fit_many
from glomerulab.stain.normalize import normalize
from glomerulab.stain.optical_density import tissue_mask
from glomerulab.stain.reference import read_reference

SIDE_UM, N_TUBULES, N_EMPTY = 200.0, 8, 4
FIELD_PX, LEAST_PX = 90, 45
BLURS = (0.5, 1.0, 1.5, 2.0)


def answered(engine, images):
    """Return the features of images."""
    parts = [
        engine.predict(stack_images(images[start : start + 32], engine.card.input_size)).features
        for start in range(0, len(images), 32)
    ]
    return np.concatenate(parts)


def part(manifest, name):
    """Read the originals of a part, and their labels."""
    table = manifest.table
    inside = (table["split"] == name).to_numpy(bool) & table["parent_id"].isna().to_numpy(bool)
    images = [
        read_image(path)
        for path, wanted in zip(manifest.image_paths(), inside, strict=True)
        if wanted
    ]
    return images, manifest.with_table(table[inside]).labels()


def last_alone(train, labels, validation, n_last):
    """Return the detector fitted on the last stage's features only."""
    detector = MahalanobisDetector.fit(train[:, -n_last:], labels, where="benchmark")
    near = np.sort(detector.distances(validation[:, -n_last:]))
    place = min(int(np.ceil((len(near) + 1) * IN_DISTRIBUTION_SHARE)), len(near)) - 1
    return lambda rows: detector.distances(rows[:, -n_last:]), near[place]


def fields(home, entries, references, source_of):
    """Cut tubule fields and empty glass from slides, normalised as their crops are."""
    rng = np.random.default_rng(0)
    tubules, glass = [], []
    for row in entries.itertuples():
        regions = read_regions(home / "regions" / f"{row.slide_id}.geojson")
        boxes = [region.box() for region in regions]
        source = source_of(row)
        with open_slide(home / row.slide_path) as slide:
            side = round(SIDE_UM / slide.mpp)
            width, height = slide.dimensions
            here, empty = 0, 0
            for _ in range(3000):
                x, y = int(rng.integers(width - side)), int(rng.integers(height - side))
                box = Box(x, y, side, side)
                if any(box.intersection_area(b) > 0.05 * b.width * b.height for b in boxes):
                    continue
                pixels = slide.read_region(box, mpp=1.0)
                share = tissue_mask(pixels, np.array(slide.background, dtype=float)).mean()
                if share > 0.8 and here < N_TUBULES:
                    here += 1
                    tubules.append(normalize(pixels, references[row.stain], source=source).image)
                if share < 0.02 and empty < N_EMPTY:
                    empty += 1
                    glass.append(normalize(pixels, references[row.stain], source=source).image)
                if here == N_TUBULES and empty == N_EMPTY:
                    break
    return tubules, glass


def kidney_patches(folder, stains):
    """Return complete glomeruli of the capsule patches, and fields beside them."""
    rng = np.random.default_rng(0)
    table = pd.read_csv(folder / "labels.csv")
    complete, beside = [], []
    rows = table[(table["class"] == "glomerulus_capsule") & table["stain"].isin(stains)]
    for row in rows.itertuples():
        image = read_image(folder / row.image)
        mask = read_image(folder / row.mask).max(axis=2) > 0
        labels, n = label(mask)
        for number in range(1, n + 1):
            ys, xs = np.nonzero(labels == number)
            longer = max(np.ptp(ys), np.ptp(xs))
            cut = min(ys.min(), xs.min()) == 0 or max(ys.max(), xs.max()) >= len(mask) - 1
            if cut or longer < LEAST_PX:
                continue
            edge = longer // 10
            upper, left = max(ys.min() - edge, 0), max(xs.min() - edge, 0)
            crop = image[upper : ys.max() + edge + 1, left : xs.max() + edge + 1]
            complete.append((row.stain, crop))
        n_here = 0
        for _ in range(400):
            y, x = rng.integers(0, len(mask) - FIELD_PX, 2)
            place = (slice(y, y + FIELD_PX), slice(x, x + FIELD_PX))
            if not mask[place].any() and (image[place].mean(axis=2) < 215).mean() > 0.8:
                beside.append((row.stain, image[place]))
                n_here += 1
            if n_here == 4:
                break
    return complete, beside


def print_referred(engine, calibration, last, test, others):
    """Print the referred share of each set, and that of the last stage only."""
    known = answered(engine, test)
    print(f"{'':34} {'n':>4} {'referred':>9} {'AUROC':>6} | last stage only")
    for name, images in {"held-out images": test, **others}.items():
        rows, cells = answered(engine, images), []
        for far, limit in ((calibration.distances, calibration.facts.distance_threshold), last):
            scores = np.concatenate([far(known), far(rows)])
            area = roc_auc_score([0] * len(known) + [1] * len(rows), scores)
            cells.append(f"{(far(rows) > limit * (1 + 1e-5)).mean():9.0%} {area:6.2f}")
        print(f"{name:34} {len(images):4} {' | '.join(cells)}")


def blurred(calibration, test):
    """Print the share that the focus gate refers with increasing blur."""
    for sigma in (0.0, *BLURS):
        stopped = [
            sharpness(gaussian_filter(image, (sigma, sigma, 0)) if sigma else image)
            < calibration.facts.sharpness_threshold
            for image in test
        ]
        print(f"blurred by {sigma:g} px: {np.mean(stopped):.0%} out of focus")


def opened(run):
    """Return a run's engine, gates, held-out images, and the gate by the last stage only."""
    engine, calibration, manifest = (
        TorchEngine(run),
        read_calibration(run),
        read_manifest(run / "manifest.csv"),
    )
    train, labels = part(manifest, "train")
    validation, _ = part(manifest, "validation")
    test, _ = part(manifest, "test")
    n_last = calibration.ood.n_features * 8 // 15  # widths double from stage to stage
    last = last_alone(answered(engine, train), labels, answered(engine, validation), n_last)
    print(f"{len(train)} training, {len(validation)} validation, {len(test)} held-out images")
    return engine, calibration, manifest, test, last


def synthetic(home, fresh, kidney):
    """Evaluate the quickstart's network."""
    engine, calibration, manifest, test, last = opened(home / "run")
    table = manifest.table
    held_out = set(table.loc[(table["split"] == "test").to_numpy(bool), "slide_id"])
    slides = pd.read_csv(home / "phantom" / "slides.csv")
    tubules, glass = fields(
        home / "phantom",
        slides[slides["slide_id"].isin(held_out)],
        calibration.references,
        lambda row: read_reference(
            home / "normalized" / "slides" / f"{row.slide_id}.{row.stain}.json"
        ),
    )
    others = {"tubules": tubules, "empty glass": glass}
    if fresh:
        slides, sources, crops = pd.read_csv(fresh / "slides.csv"), {}, []
        for row in slides.itertuples():
            regions = read_regions(fresh / "regions" / f"{row.slide_id}.geojson")
            with open_slide(fresh / row.slide_path) as slide:
                cut = [slide.read_region(one.box().grown(0.1), mpp=1.0) for one in regions]
            sources[row.slide_id] = fit_many(cut, row.stain, source=row.slide_id)
            crops += [
                normalize(
                    one, calibration.references[row.stain], source=sources[row.slide_id]
                ).image
                for one in cut
            ]
        others["glomeruli, other scanners"] = crops
        others["tubules, other scanners"] = fields(
            fresh, slides, calibration.references, lambda row: sources[row.slide_id]
        )[0]
    if kidney:
        complete, beside = kidney_patches(kidney, list(calibration.references))
        for name, found in (("complete glomeruli", complete), ("fields beside them", beside)):
            others[f"real: {name}"] = [
                normalize(image, calibration.references[stain]).image for stain, image in found
            ]
    print_referred(engine, calibration, last, test, others)
    blurred(calibration, test)


def real(run, kidney):
    """Evaluate a network trained on GlaS."""
    engine, calibration, _, test, last = opened(run)
    table = pd.read_csv(kidney / "labels.csv")
    others = {
        f"kidney {stain}": [read_image(kidney / image) for image in rows["image"]]
        for stain, rows in table.groupby("stain")
    }
    print_referred(engine, calibration, last, test, others)
    blurred(calibration, test)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("synthetic")
    one.add_argument("quickstart", type=Path)
    one.add_argument("--fresh", type=Path)
    one.add_argument("--kidney", type=Path)
    other = commands.add_parser("real")
    other.add_argument("run", type=Path)
    other.add_argument("--kidney", type=Path, required=True)
    told_to = parser.parse_args()
    if told_to.command == "synthetic":
        synthetic(told_to.quickstart, told_to.fresh, told_to.kidney)
    else:
        real(told_to.run, told_to.kidney)


if __name__ == "__main__":
    main()
