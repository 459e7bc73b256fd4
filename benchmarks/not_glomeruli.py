"""How many true glomeruli, and how many other places, lie far from a model's training images.

    GLOMERULAB_REAL_DATA=... python benchmarks/not_glomeruli.py

Real PAS crops of AIDPATH, divided by slide and by centre; other places are squares of its fields
that touch no glomerulus. Distances and features are those of `predict`, of lite0 with ImageNet
weights.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.model_selection import GroupShuffleSplit

from glomerulab.images import read_image, resized
from glomerulab.inference.engines.torch_engine import NetworkWithFeatures
from glomerulab.inference.ood import MahalanobisDetector
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import imagenet_scale, imagenet_weights, load_matching

REAL_DATA = Path(os.environ.get("GLOMERULAB_REAL_DATA", "../shared/data"))
FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0)
INPUT_SIZE = 224
SQUARE_PX = 240
N_PER_FIELD = 4
N_TRIES = 200
LEAST_SPREAD = 15.0  # grey levels; glass varies less
N_SPLITS = 4


def main() -> None:
    network = create_model("lite0", 2).eval()
    weights = read_weights(imagenet_weights("lite0"), network).tensors
    load_matching(network, weights, input_size=INPUT_SIZE, leave=("classifier",))
    table = pd.read_csv(REAL_DATA / "aidpath_glomeruli" / "labels.csv")
    crops = [read_image(REAL_DATA / "aidpath_glomeruli" / name) for name in table["image"]]
    with_features = NetworkWithFeatures(network, *imagenet_scale("lite0")).eval()
    features = vectors(with_features, crops)
    others = vectors(with_features, other_places())
    sclerosed = (table["label"] == "global_sclerosis").to_numpy(float)
    labels = np.stack([sclerosed, 1 - sclerosed], axis=1)
    slides, centres = table["slide_id"].to_numpy(), table["centre"].to_numpy()
    everything = np.arange(len(table))
    print("held out", *FACTORS, "| other places", *FACTORS)
    for seed in range(N_SPLITS):
        training, rest = divided(everything, slides, 0.6, seed)
        validation, test = divided(rest, slides, 0.5, seed)
        detector, threshold = fitted(features, labels, training, validation)
        show(
            f"slides, seed {seed}",
            detector.distances(features[test]) / threshold,
            detector.distances(others) / threshold,
        )
    for centre in sorted(set(centres)):
        training, validation = divided(everything[centres != centre], slides, 0.8, 0)
        detector, threshold = fitted(features, labels, training, validation)
        show(
            centre,
            detector.distances(features[centres == centre]) / threshold,
            detector.distances(others) / threshold,
        )


def vectors(
    network: torch.nn.Module, images: list[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.float32]:
    found = []
    for at in range(0, len(images), 16):
        pixels = np.stack(
            [resized(image, INPUT_SIZE, INPUT_SIZE) for image in images[at : at + 16]]
        )
        with torch.inference_mode():
            found.append(network(torch.from_numpy(pixels))[1])
    return torch.cat(found).numpy()


def other_places() -> list[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    found = []
    for path in sorted((REAL_DATA / "aidpath_fields" / "images").iterdir()):
        image = read_image(path)
        mask = read_image(path.parents[1] / "masks" / f"{path.stem}.png")[..., 0] > 127
        of_field = 0
        for _ in range(N_TRIES):
            x, y = (
                random.integers(0, side - SQUARE_PX) for side in (image.shape[1], image.shape[0])
            )
            place = np.s_[y : y + SQUARE_PX, x : x + SQUARE_PX]
            if mask[place].any() or image[place].mean(axis=2).std() < LEAST_SPREAD:
                continue
            found.append(image[place])
            of_field += 1
            if of_field == N_PER_FIELD:
                break
    return found


def divided(
    rows: npt.NDArray[np.int64], slides: npt.NDArray[np.object_], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    kind = GroupShuffleSplit(1, train_size=share, random_state=seed)
    first, second = next(kind.split(rows, groups=slides[rows]))
    return rows[first], rows[second]


def fitted(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float64],
    training: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64],
) -> tuple[MahalanobisDetector, float]:
    """Return the detector and its threshold: the conformal 95 % quantile of validation images."""
    detector = MahalanobisDetector.fit(features[training], labels[training], where="benchmark")
    distances = np.sort(detector.distances(features[validation]))
    return detector, float(
        distances[min(int(np.ceil((len(distances) + 1) * 0.95)), len(distances)) - 1]
    )


def show(name: str, held_out: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> None:
    shares = [[f"{(one > factor).mean():.3f}" for factor in FACTORS] for one in (held_out, others)]
    print(f"{name} ({len(held_out)})", *shares[0], f"| ({len(others)})", *shares[1])


if __name__ == "__main__":
    main()
