"""Intervals of the full score table against a simple loop over resamples.

    python benchmarks/bootstrap.py

Prints a Markdown table. The loop draws patients and calls scikit-learn for every resample, as in a
hand-written script; it is timed on a few resamples and scaled, since all would take minutes.
"""

import os
import platform
import time

import numpy as np
import pandas as pd
from sklearn import metrics

from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.evaluation.scores import score_table
from glomerulab.predictions import predictions_table
from glomerulab.taxonomy import load_taxonomy

N_IMAGES, N_PATIENTS, N_RESAMPLES = 3000, 300, 2000
N_LOOPED = 20
N_REPEATS = 3


def main() -> None:
    eval_set = sample()
    ours = min(
        timed(lambda: score_table(eval_set, n_resamples=N_RESAMPLES)) for _ in range(N_REPEATS)
    )
    looped = timed(lambda: simple_loop(eval_set, N_LOOPED)) * N_RESAMPLES / N_LOOPED
    print(f"{N_IMAGES} images of {N_PATIENTS} patients, {N_RESAMPLES} resamples, 42 scores each;")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print("| how | seconds |\n|---|---|")
    print(f"| `score_table` (best of {N_REPEATS}) | {ours:.2f} |")
    print(f"| loop over scikit-learn (scaled from {N_LOOPED} resamples) | {looped:.0f} |")


def sample() -> EvalSet:
    rng = np.random.default_rng(0)
    taxonomy = load_taxonomy("paper")
    truth = rng.integers(4, size=N_IMAGES)
    logits = 2.0 * np.eye(4)[truth] + rng.normal(size=(N_IMAGES, 4))
    rows = pd.DataFrame(np.eye(4, dtype=int)[truth], columns=list(taxonomy.label_ids))
    rows["image_id"] = [f"i{place}" for place in range(N_IMAGES)]
    rows["patient_id"] = [f"p{patient}" for patient in rng.integers(N_PATIENTS, size=N_IMAGES)]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = predictions_table(rows, probabilities, taxonomy)
    return eval_set_of_split(table, taxonomy, split=None)


def simple_loop(eval_set: EvalSet, n_resamples: int) -> None:
    rng = np.random.default_rng(0)
    places = [np.flatnonzero(eval_set.patients == p) for p in range(eval_set.n_patients)]
    for _ in range(n_resamples):
        drawn = np.concatenate([places[p] for p in rng.integers(len(places), size=len(places))])
        truth, decision = eval_set.truth[drawn], eval_set.decision[drawn]
        metrics.accuracy_score(truth, decision)
        metrics.balanced_accuracy_score(truth, decision)
        metrics.precision_recall_fscore_support(truth, decision)
        metrics.matthews_corrcoef(truth, decision)
        metrics.cohen_kappa_score(truth, decision)
        for k in range(4):
            metrics.roc_auc_score(truth == k, eval_set.probabilities[drawn, k])
            metrics.average_precision_score(truth == k, eval_set.probabilities[drawn, k])


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
