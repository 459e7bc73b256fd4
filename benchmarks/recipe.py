"""What the network, the size and the orientations of a probe bring, on the folds of `crossval`.

    python benchmarks/recipe.py MANIFEST --folder FEATURES --candidates lite2:448:8 lite2:448:1 ...
        [--group centre] [--repeats 3] [--balanced] [--weights NAME=FILE]

A candidate is NETWORK:INPUT:ORIENTATIONS; several joined by `+` are one. Features are kept in
FEATURES, so that a second run takes minutes. The last row is the honest one: in each fold the
candidate and its strength are chosen by the log-loss of inner folds by patient.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.cohort.splits import assign_folds, group_rows
from glomerulab.models.networks.probe import FeatureExtractor
from glomerulab.runtime.progress import silent
from glomerulab.training.config import TrainConfig
from glomerulab.training.features import embed, extractor_fingerprint
from glomerulab.training.linear import fit_linear
from glomerulab.training.probe import n_pretrained_stages
from glomerulab.training.run import initial_network

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
N_INNER_FOLDS = 5

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--candidates", nargs="+", required=True)
    parser.add_argument("--weights", nargs="*", default=[])
    parser.add_argument("--group", default="patient")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--balanced", action="store_true")
    parser.add_argument("--nested", action="store_true")
    args = parser.parse_args()
    manifest = read_manifest(args.manifest)
    weights = dict(one.split("=", 1) for one in args.weights)
    features = {
        name: np.concatenate(
            [features_of(one, manifest, args.folder, weights) for one in name.split("+")], axis=1
        )
        for name in args.candidates
    }
    cohort = Cohort(manifest.labels(), group_rows(manifest, "patient"), args.balanced)
    n_folds = 5 if args.group == "patient" else len(set(group_rows(manifest, args.group)))
    repeats = args.repeats if args.group == "patient" else 1
    divisions = [
        assign_folds(manifest, n_folds=n_folds, by=args.group, seed=seed)
        .table["fold"]
        .to_numpy(dtype=np.int64)
        for seed in range(repeats)
    ]
    print("| candidate | accuracy | balanced accuracy | ROC-AUC |\n|---|---|---|---|")
    for name, values in features.items():
        show(name, [cohort.held_out({name: values}, folds)[0] for folds in divisions], cohort)
    if args.nested:
        chosen = [cohort.held_out(features, folds) for folds in divisions]
        show("chosen inside each fold", [one for one, _ in chosen], cohort)
        print([names for _, names in chosen])


def features_of(
    candidate: str, manifest: Manifest, folder: Path, weights: dict[str, str]
) -> npt.NDArray[np.float32]:
    name, size, n_views = candidate.split(":")
    config = TrainConfig.model_validate(
        {"manifest": manifest.file, "out": folder / "run", "seed": 0}
        | {"model": {"name": name, "input_size": int(size)}}
        | {"start": {"weights": weights.get(name, "imagenet"), "partial": name in weights}}
    )
    network, card, start = initial_network(config, manifest)
    n_stages = n_pretrained_stages(network, start.pretrained, input_size=card.input_size)
    extractor = FeatureExtractor(network, n_stages=n_stages, n_views=int(n_views)).eval()
    kept = folder / extractor_fingerprint(extractor, card, n_stages=n_stages)
    return embed(manifest, extractor, card, folder=kept, track=silent)


@dataclass(frozen=True)
class Cohort:
    """Labels of two classes and the patients of all images."""

    labels: FloatArray
    patients: IntArray
    is_balanced: bool

    @property
    def targets(self) -> IntArray:
        return np.argmax(self.labels, axis=1)

    def held_out(
        self, features: dict[str, npt.NDArray[np.float32]], folds: IntArray
    ) -> tuple[FloatArray, list[str]]:
        """Return the probability of the second class, and the candidate chosen in each fold."""
        probabilities = np.full(len(folds), np.nan)
        names = []
        for fold in np.unique(folds):
            training, test = np.flatnonzero(folds != fold), folds == fold
            name = next(iter(features))
            if len(features) == 1:
                strengths: tuple[float, ...] = STRENGTHS
            else:
                name, strength = self._best(features, training)
                strengths = (strength,)
            names.append(name)
            probabilities[test] = self._predicted(features[name], training, test, strengths)
        return probabilities, names

    def _best(
        self, features: dict[str, npt.NDArray[np.float32]], training: IntArray
    ) -> tuple[str, float]:
        kind = StratifiedGroupKFold(N_INNER_FOLDS, shuffle=True, random_state=0)
        inner = list(kind.split(training, self.targets[training], self.patients[training]))
        losses = {}
        for name, values in features.items():
            for strength in STRENGTHS:
                of_folds = []
                for fit, held_out in inner:
                    rows = training[held_out]
                    found = self._predicted(values, training[fit], rows, (strength,))
                    of_folds.append(log_loss(self.targets[rows], found, labels=[0, 1]))
                losses[name, strength] = np.mean(of_folds)
        return min(losses, key=losses.__getitem__)

    def _predicted(
        self,
        values: npt.NDArray[np.float32],
        training: IntArray,
        rows: npt.NDArray[np.generic],
        strengths: tuple[float, ...],
    ) -> FloatArray:
        found = fit_linear(
            values[training],
            self.labels[training],
            self.patients[training],
            head="softmax",
            strengths=strengths,
            n_inner_folds=N_INNER_FOLDS,
            is_balanced=self.is_balanced,
        )
        logits = ((values[rows] - found.offset) * found.scale) @ found.weights.T + found.bias
        return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


def show(name: str, repeats: list[FloatArray], cohort: Cohort) -> None:
    targets = cohort.targets
    scores = [
        (
            accuracy_score(targets, one > 0.5),
            balanced_accuracy_score(targets, one > 0.5),
            roc_auc_score(targets, one),
        )
        for one in repeats
    ]
    shown = " | ".join(f"{score:.3f}" for score in np.mean(scores, axis=0))
    print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
