"""Recall and precision of a detector: on phantom slides, and separately on real kidney patches.

    glomerulab phantom --out ph --slides --patients 40 --per-patient 8 --slides-per-patient 2 \
        --mpp 1 --seed 101 --workers 2
    glomerulab train-detector ph/slides.csv --regions ph/regions --out detector --workers 2
    glomerulab phantom --out fresh --slides --patients 16 --per-patient 8 --mpp 0.5 --seed 202
    python benchmarks/detector.py phantom detector fresh
    python benchmarks/detector.py real detector kidney_compartments     # as it is
    python benchmarks/detector.py taught kidney_compartments [--start detector]  # on real patches

Of `kidney_compartments` only the capsule patches have every glomerulus drawn. Their
micrometres per pixel are not stated: 2 is assumed, at which most glomeruli are 110 to 270 µm wide.
The patches of the other classes have another magnification, and some show undrawn glomeruli.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.measure import find_contours

from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.evaluation.detection import detection_scores
from glomerulab.geometry import Region
from glomerulab.images import read_image
from glomerulab.inference.detector import detect_on, match_slides, open_detector
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.regions.polygons import mean_radius

PATCH_MPP = 2.0
LEAST_RADIUS_UM = 40.0
N_FOLDS = 5


def print_scores(name, seen, card):
    """Print recall and precision by both rules."""
    for rule in ("iou", "centre"):
        matches = match_slides(seen, growth=card.growth, rule=rule)
        one = detection_scores(matches, threshold=card.score_threshold)
        recall, precision = one.recall_interval, one.precision_interval
        print(
            f"{name:28} {rule:6} {one.n_found}/{one.n_truth} drawn, {one.n_proposed} proposed: "
            f"recall {one.recall:.3f} ({recall.low:.3f}-{recall.high:.3f}), "
            f"precision {one.precision:.3f} ({precision.low:.3f}-{precision.high:.3f})"
        )


def phantom(folder, home):
    """Evaluate on slides of another phantom cohort."""
    detector = open_detector(folder)
    print(detector.card.test_summary)
    entries = read_slides(home / "slides.csv")
    start = time.perf_counter()
    seen = [detect_on(entry, home / "regions", detector.engine) for entry in entries]
    print(f"{(time.perf_counter() - start) / len(entries):.1f} s per slide")
    print_scores(f"{len(entries)} fresh slides", seen, detector.card)
    for stain in sorted({entry.stain for entry in entries}):
        some = [one for one, entry in zip(seen, entries, strict=True) if entry.stain == stain]
        print_scores(f"  {stain}", some, detector.card)


def patches(kidney, home):
    """Write the capsule patches as slides: a table, and regions from their masks."""
    table = pd.read_csv(kidney / "labels.csv")
    entries = []
    (home / "regions").mkdir(parents=True)
    for row in table[table["class"] == "glomerulus_capsule"].itertuples():
        slide_id = f"{row.stain}-{Path(row.image).stem}"
        mask = read_image(kidney / row.mask).max(axis=2) > 0
        regions = []
        for contour in find_contours(np.pad(mask.astype(float), 1), 0.5):
            outline = tuple((float(x) - 1, float(y) - 1) for y, x in contour[:-1])
            if mean_radius(outline) * PATCH_MPP >= LEAST_RADIUS_UM:
                regions.append(Region(f"{slide_id}-{len(regions) + 1}", outline))
        write_regions(regions, home / "regions" / f"{slide_id}.geojson")
        stain = {"SIL": "PASM"}.get(row.stain, row.stain)
        entries.append(SlideEntry(kidney / row.image, slide_id, row.source_image, stain, PATCH_MPP))
    return entries


def real(folder, kidney):
    """Evaluate a detector trained without real images on the capsule patches."""
    detector = open_detector(folder)
    with tempfile.TemporaryDirectory() as home:
        entries = patches(kidney, Path(home))
        seen = [detect_on(entry, Path(home) / "regions", detector.engine) for entry in entries]
    print_scores(f"{len(entries)} real patches", seen, detector.card)
    for stain in sorted({entry.stain for entry in entries}):
        some = [one for one, entry in zip(seen, entries, strict=True) if entry.stain == stain]
        print_scores(f"  {stain}", some, detector.card)


def taught(kidney, start, epochs):
    """Train on the patches of four folds and evaluate on the fifth, five times."""
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        entries = patches(kidney, home)
        groups = np.array(sorted({entry.patient_id for entry in entries}))
        np.random.default_rng(0).shuffle(groups)
        results = []
        for fold in range(N_FOLDS):
            out = set(groups[fold::N_FOLDS])
            run = home / f"fold{fold}"
            train([one for one in entries if one.patient_id not in out], home, run, start, epochs)
            detector = open_detector(run)
            held = [one for one in entries if one.patient_id in out]
            seen = [detect_on(entry, home / "regions", detector.engine) for entry in held]
            results += matches_above(seen, detector.card)
        for rule, position in (("iou", 0), ("centre", 1)):
            one = detection_scores([result[position] for result in results])
            print(
                f"{rule:6} {one.n_found}/{one.n_truth} drawn, {one.n_proposed} proposed: recall "
                f"{one.recall:.2f} ({one.recall_interval.low:.2f}-{one.recall_interval.high:.2f}), "
                f"precision {one.precision:.2f} "
                f"({one.precision_interval.low:.2f}-{one.precision_interval.high:.2f})"
            )


def matches_above(seen, card):
    """Match proposals by each rule; every fold has its own threshold and size."""
    kept = [
        type(one)(
            one.patient,
            tuple(blob for blob in one.blobs if blob.score >= card.score_threshold),
            one.truth,
        )
        for one in seen
    ]
    return list(
        zip(
            *(match_slides(kept, growth=card.growth, rule=rule) for rule in ("iou", "centre")),
            strict=True,
        )
    )


def train(entries, home, run, start, epochs):
    """Train with the user's command."""
    table = home / f"{run.name}.csv"
    rows = [
        {
            "slide_path": str(one.path.resolve()),
            "slide_id": one.slide_id,
            "patient_id": one.patient_id,
            "stain": one.stain,
            "mpp": one.mpp,
        }
        for one in entries
    ]
    pd.DataFrame(rows).to_csv(table, index=False)
    command = [
        sys.executable,
        "-m",
        "glomerulab",
        "train-detector",
        table,
        "--regions",
        home / "regions",
        "--out",
        run,
        "--set",
        f"epochs={epochs}",
    ]
    if start is not None:
        command += ["--set", f"start.weights={str(start.resolve())!r}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("phantom", "real"):
        one = commands.add_parser(name)
        one.add_argument("detector", type=Path)
        one.add_argument("data", type=Path)
    one = commands.add_parser("taught")
    one.add_argument("data", type=Path)
    one.add_argument("--start", type=Path)
    one.add_argument("--epochs", type=int, default=60)
    told_to = parser.parse_args()
    if told_to.command == "phantom":
        phantom(told_to.detector, told_to.data)
    elif told_to.command == "real":
        real(told_to.detector, told_to.data)
    else:
        taught(told_to.data, told_to.start, told_to.epochs)


if __name__ == "__main__":
    main()
