"""Effect of the mean over the eight symmetries on accuracy and conformal sets.

    glomerulab predict ph/slides.csv --model run --regions ph/regions --out plain
    glomerulab predict ph/slides.csv --model run --regions ph/regions --out turned --symmetries
    python benchmarks/symmetries.py plain turned

The slides are synthetic and their regions carry the true labels.
"""

import argparse
from pathlib import Path

import numpy as np

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.evaluation.intervals import patient_weights, percentile_interval
from glomerulab.predictions import label_array, probability_array, read_predictions

N_RESAMPLES = 2000


def read(folder):
    """Return the compared measures of a predictions folder."""
    case = read_case_folder(folder)
    table = read_predictions(folder / "predictions.csv", case.taxonomy, head=case.head)
    labels = label_array(table, case.taxonomy)
    # The model calls one label per image: images with two lesions have no correct call.
    kept = (labels == 1).sum(axis=1) == 1
    chances, truth = probability_array(table, case.taxonomy)[kept], labels[kept].argmax(axis=1)
    rows = np.arange(len(truth))
    states = np.array(
        [[call.states[key] for key in case.taxonomy.label_ids] for call in case.calls]
    )
    inside = states[kept] != "absent"
    measures = {
        "accuracy": chances.argmax(axis=1) == truth,
        "log loss": -np.log(np.clip(chances[rows, truth], 1e-7, 1)),
        "confidence": chances.max(axis=1),
        "set holds the truth": inside[rows, truth],
        "labels in the set": inside.sum(axis=1),
    }
    return table["patient_id"].to_numpy()[kept], measures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("plain", type=Path)
    parser.add_argument("turned", type=Path)
    arguments = parser.parse_args()
    patient, single = read(arguments.plain)
    same, turned = read(arguments.turned)
    if (patient != same).any():
        raise SystemExit("the two folders hold other images")
    ids = np.unique(patient)
    weights = patient_weights(len(ids), n_resamples=N_RESAMPLES, seed=0)
    belongs = (patient[None] == ids[:, None]).astype(float)  # (patients, images)
    n = weights @ belongs.sum(axis=1)
    print(f"{len(patient)} synthetic glomeruli of {len(ids)} patients")
    for name, values in single.items():
        gain = turned[name].astype(float) - values
        ends = percentile_interval(weights @ (belongs @ gain) / n)
        print(
            f"{name:20} {values.mean():.3f} -> {turned[name].mean():.3f}, "
            f"difference {gain.mean():+.3f} ({ends.low:+.3f} to {ends.high:+.3f})"
        )


if __name__ == "__main__":
    main()
