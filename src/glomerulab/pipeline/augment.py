"""Augment the training part of a manifest before training; each new image names its parent.

Validation and test rows are unchanged, and partners for mixup come from the training part alone,
since a blend with a test image would leak that image into training.
"""

import hashlib
import os
import re
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ManifestError
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.augmentation import add_noise, flip, mix, rotate

__all__ = ["AugmentResult", "augment_manifest", "training_size"]

OPERATIONS = ("rotation", "noise", "mixup")
MIXUP_ALPHA = 0.4
NOISE_SIGMA = (0.01, 0.05)
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class AugmentResult:
    """The larger manifest, and the images that could not be made."""

    manifest: Manifest
    failures: dict[str, str]
    """Reasons by new image id; these images are not in the manifest."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One image to make."""

    image_id: str
    parent: int  # row of the manifest
    operation: str
    partner: int | None
    parent_path: Path
    partner_path: Path | None
    out: Path
    seed: tuple[int, ...]


def training_size(manifest: Manifest, total: int) -> int:
    """Return the number of training images with which all parts together hold `total`.

    Raises
    ------
    ManifestError
        If the parts hold more images already.
    """
    parts = manifest.table["split"].dropna()
    if total < len(parts):
        raise ManifestError(
            f"the parts of the split hold {len(parts)} images already, more than {total}; give a "
            "larger --total",
            where=manifest.location,
        )
    return total - int((parts != TRAIN).sum())


def augment_manifest(
    manifest: Manifest,
    out: Path,
    *,
    to: int,
    seed: int = 0,
    balanced: bool = False,
    n_workers: int = 1,
    track: Track = silent,
) -> AugmentResult:
    """Add images to the training part by rotation, noise and mixup, up to an exact number.

    Parameters
    ----------
    manifest : Manifest
        With a split; rows outside the part ``train`` are kept as they are.
    out : Path
        New images go to ``images/`` below it; existing ones are kept.
    to : int
        Number of training images in the result, originals and copies together.
    seed : int, default 0
        The result does not depend on the number of workers.
    balanced : bool, default False
        Copy rare label sets more often, so that all become as equal as possible; otherwise the
        numbers of copies of any two originals differ by at most one.

    Returns
    -------
    AugmentResult
        New rows have the columns ``parent_id``, ``augmentation`` and ``partner_id`` set.

    Raises
    ------
    ManifestError
        If there is no training part, or it holds more than `to` images already.
    """
    table = manifest.table
    training = np.flatnonzero((table["split"] == TRAIN).fillna(value=False).to_numpy(dtype=bool))
    if len(training) == 0:
        raise ManifestError(
            "no row is in the training part; run `glomerulab split` first",
            where=manifest.location,
        )
    if to < len(training):
        raise ManifestError(
            f"the training part holds {len(training)} images already, more than {to}; "
            "give a larger --to",
            where=manifest.location,
        )
    folder = make_folder(out / "images")
    copies = _plan(
        manifest, training, folder, n_new=to - len(training), seed=seed, balanced=balanced
    )
    failures: dict[str, str] = {}
    with closing(map_outcomes(_make, copies, n_workers=n_workers)) as outcomes:
        for outcome in track(outcomes, "Augmenting", len(copies)):
            if outcome.error is not None:
                failures[outcome.item.image_id] = str(outcome.error)
    made = [copy for copy in copies if copy.image_id not in failures]
    return AugmentResult(_with_copies(manifest, made), failures)


def _plan(
    manifest: Manifest,
    training: npt.NDArray[np.int64],
    folder: Path,
    *,
    n_new: int,
    seed: int,
    balanced: bool,
) -> list[_Copy]:
    """Choose parent, operation and partner of every new image."""
    table = manifest.table
    originals = [int(row) for row in training if pd.isna(table["parent_id"].iloc[int(row)])]
    if not originals and n_new:
        raise ManifestError(
            "every training image is a copy already; augment the originals",
            where=manifest.location,
        )
    names = _label_set_names(manifest)
    groups: dict[str, list[int]] = {}
    for row in originals:
        groups.setdefault(names[row], []).append(row)
    n_existing = {name: sum(names[int(row)] == name for row in training) for name in groups}
    rng = np.random.default_rng(seed)
    parents = (
        _balanced_parents(groups, n_existing, n_new, rng)
        if balanced
        else _even_parents(originals, n_new, rng)
    )
    paths = manifest.image_paths()
    taken = set(table["image_id"])
    copies = []
    for number, parent in enumerate(parents):
        image_id = _free_id(str(table["image_id"].iloc[parent]), taken)
        taken.add(image_id)
        operation = OPERATIONS[number % len(OPERATIONS)]
        others = [row for row in groups[names[parent]] if row != parent]
        if operation == "mixup" and not others:
            operation = "rotation"
        partner = int(rng.choice(others)) if operation == "mixup" else None
        copies.append(
            _Copy(
                image_id,
                parent,
                operation,
                partner,
                paths[parent],
                None if partner is None else paths[partner],
                folder / _file_name(image_id, operation, partner, seed, number),
                (seed, number),
            )
        )
    return copies


def _free_id(parent_id: str, taken: set[str]) -> str:
    """Return the first id of a copy that is not taken, numbered from 1."""
    return next(name for n in count(1) if (name := f"{parent_id}_aug{n}") not in taken)


def _even_parents(originals: list[int], n_new: int, rng: np.random.Generator) -> list[int]:
    """Return the originals in random rounds, which makes their numbers of copies nearly equal."""
    parents: list[int] = []
    while len(parents) < n_new:
        parents += [originals[place] for place in rng.permutation(len(originals))]
    return parents[:n_new]


def _balanced_parents(
    groups: dict[str, list[int]], n_existing: dict[str, int], n_new: int, rng: np.random.Generator
) -> list[int]:
    """Return parents, each from the label set that has the fewest images so far."""
    waiting: dict[str, list[int]] = {name: [] for name in groups}
    totals = dict(n_existing)
    parents = []
    for _ in range(n_new):
        name = min(totals, key=lambda key: (totals[key], key))
        if not waiting[name]:
            waiting[name] = [groups[name][place] for place in rng.permutation(len(groups[name]))]
        parents.append(waiting[name].pop())
        totals[name] += 1
    return parents


def _make(copy: _Copy) -> None:
    """Write one new image, unless it exists."""
    if copy.out.is_file():
        return
    rng = np.random.default_rng(copy.seed)
    image = _as_tensor(read_image(copy.parent_path))
    if copy.operation == "rotation":
        across, down = rng.random(2) < 0.5
        image = flip(image, horizontally=bool(across), vertically=bool(down))
        image = rotate(image, float(rng.uniform(-180.0, 180.0)))
    elif copy.operation == "noise":
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image = add_noise(image, noise * float(rng.uniform(*NOISE_SIGMA)))
    elif copy.partner_path is not None:
        partner = _as_tensor(read_image(copy.partner_path))
        partner = transforms.resize(partner, list(image.shape[1:]), antialias=True)
        image = mix(image, partner, float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA)))
    write_image(_as_pixels(image), copy.out)


def _with_copies(manifest: Manifest, copies: list[_Copy]) -> Manifest:
    """Append one row per copy: that of its parent with its own id, path and history."""
    table = manifest.table.copy()
    for column in ("augmentation", "partner_id"):
        if column not in table:
            table[column] = pd.array([pd.NA] * len(table), dtype="string")
    if not copies:
        return replace(manifest, table=table)
    ids = table["image_id"]
    folder = manifest.folder.absolute()
    rows = table.iloc[[copy.parent for copy in copies]].reset_index(drop=True)
    partners = [pd.NA if copy.partner is None else ids.iloc[copy.partner] for copy in copies]
    rows["parent_id"] = ids.iloc[[copy.parent for copy in copies]].to_numpy()
    rows["image_id"] = pd.array([copy.image_id for copy in copies], dtype="string")
    paths = [Path(os.path.relpath(copy.out.absolute(), folder)).as_posix() for copy in copies]
    rows["image_path"] = pd.array(paths, dtype="string")
    rows["augmentation"] = pd.array([copy.operation for copy in copies], dtype="string")
    rows["partner_id"] = pd.array(partners, dtype="string")
    return replace(manifest, table=pd.concat([table, rows], ignore_index=True))


def _label_set_names(manifest: Manifest) -> list[str]:
    labels = manifest.table[list(manifest.taxonomy.label_ids)]
    return ["|".join("?" if pd.isna(v) else str(v) for v in row) for row in labels.to_numpy()]


def _file_name(image_id: str, *history: object) -> str:
    """Return a file name that depends on how the image is made, so that no other plan reuses it."""
    digest = hashlib.sha256(repr((image_id, *history)).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^0-9A-Za-z_.-]', '_', image_id)}-{digest}.png"


def _as_tensor(pixels: RgbImage) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0


def _as_pixels(image: Tensor) -> RgbImage:
    pixels: RgbImage = (image * 255.0).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels)
