"""The answers of a model to the images of a manifest, kept line by line so that a run resumes.

An image that cannot be read is a failure beside the others and stops nothing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.normalize_progress import file_mark
from glomerulab.errors import GlomerulabError
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.inference.engine import Engine
from glomerulab.inference.gates import Gates
from glomerulab.inference.sharpness import sharpness
from glomerulab.models.card import ModelCard
from glomerulab.progress import Track, silent

__all__ = [
    "ANSWERS_FILE",
    "Answer",
    "Finding",
    "Shown",
    "answer_manifest",
    "answer_shown",
    "shown_to",
]

ANSWERS_FILE = "answers.jsonl"
BATCH = 16
SAME_MPP = 0.02


@dataclass(frozen=True)
class Answer:
    """What was found of one image."""

    image_id: str
    by: str
    """Mark of the model and its gates."""
    size: int
    modified: int
    """Of the file; with its size they tell whether it changed since."""
    logits: tuple[float, ...]
    distance: float
    sharpness: float


@dataclass(frozen=True, eq=False)
class Shown:
    """An image as the network is shown it, and what only the whole image could tell."""

    pixels: RgbImage
    """Shape (S, S, 3), S being the input size of the model."""
    sharpness: float


@dataclass(frozen=True)
class Finding:
    """What a model and its gates find in one image, whether it came from a file or not."""

    logits: tuple[float, ...]
    distance: float
    sharpness: float


@dataclass(frozen=True)
class _Item:
    image_id: str
    path: Path
    mpp: float | None


def answer_manifest(
    manifest: Manifest, engine: Engine, gates: Gates, folder: Path, *, track: Track = silent
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Answer every image, except those that were answered before by the same model.

    Parameters
    ----------
    manifest : Manifest
    engine : Engine
    gates : Gates
    folder : Path
        Where ``answers.jsonl`` is kept.
    track : Track, optional

    Returns
    -------
    answers : dict of str to Answer
        By image id, of the images of the manifest that could be read.
    failures : dict of str to str
        Why the others could not.
    """
    path = folder / ANSWERS_FILE
    known = _read(path, gates.mark)
    items = _items(manifest)
    waiting = [item for item in items if not _is_done(item, known.get(item.image_id))]
    failures: dict[str, str] = {}
    starts = range(0, len(waiting), BATCH)
    with path.open("a", encoding="utf-8") as lines:
        lines.write("\n")  # ends the line that a killed run may have left
        for start in track(starts, "Predicting", len(starts)):
            readable = list(_readable(waiting[start : start + BATCH], failures))
            for answer in _answer_batch(readable, engine, gates):
                known[answer.image_id] = answer
                lines.write(json.dumps(asdict(answer)) + "\n")
            lines.flush()
    wanted = {item.image_id for item in items} - set(failures)
    return {key: answer for key, answer in known.items() if key in wanted}, failures


def _items(manifest: Manifest) -> list[_Item]:
    columns = zip(
        manifest.table["image_id"], manifest.image_paths(), manifest.table["mpp"], strict=True
    )
    return [
        _Item(str(image_id), path, None if pd.isna(mpp) else float(mpp))
        for image_id, path, mpp in columns
    ]


def _readable(items: Sequence[_Item], failures: dict[str, str]) -> Iterator[tuple[_Item, RgbImage]]:
    for item in items:
        try:
            yield item, read_image(item.path)
        except GlomerulabError as error:
            failures[item.image_id] = str(error)


def shown_to(card: ModelCard, image: RgbImage, mpp: float | None) -> Shown:
    """Make of an image all that is needed to answer it, so that itself need not be kept.

    Parameters
    ----------
    card : ModelCard
    image : ndarray of uint8, shape (H, W, 3)
        In the colours of the run's stain references.
    mpp : float or None
        Micrometres per pixel; None where unknown.

    Returns
    -------
    Shown
    """
    pixels = resized(image, card.input_size, card.input_size)
    return Shown(pixels, sharpness(_at_mpp(image, mpp, card.mpp)))


def answer_shown(batch: Sequence[Shown], engine: Engine, gates: Gates) -> list[Finding]:
    """Answer images, whether they came from files or not: what `decide` needs of each.

    Parameters
    ----------
    batch : sequence of Shown
        At least one.
    engine : Engine
    gates : Gates

    Returns
    -------
    list of Finding
    """
    answers = engine.answer(np.stack([one.pixels for one in batch]))
    distances = gates.distances(answers.features)
    return [
        Finding(
            tuple(float(value) for value in answers.logits[place]),
            float(distances[place]),
            one.sharpness,
        )
        for place, one in enumerate(batch)
    ]


def _answer_batch(
    batch: Sequence[tuple[_Item, RgbImage]], engine: Engine, gates: Gates
) -> Iterator[Answer]:
    if not batch:
        return
    shown = [shown_to(engine.card, image, item.mpp) for item, image in batch]
    found = answer_shown(shown, engine, gates)
    for (item, _), finding in zip(batch, found, strict=True):
        size, modified = file_mark(item.path)
        yield Answer(
            item.image_id, gates.mark, size, modified, finding.logits,
            finding.distance, finding.sharpness,
        )  # fmt: skip


def _at_mpp(image: RgbImage, mpp: float | None, wanted: float | None) -> RgbImage:
    """Bring an image to the model's scale, on which its sharpness can be compared."""
    if mpp is None or wanted is None or abs(mpp / wanted - 1) < SAME_MPP:
        return image
    height, width = (max(round(side * mpp / wanted), 3) for side in image.shape[:2])
    return resized(image, width, height)


def _is_done(item: _Item, answer: Answer | None) -> bool:
    return answer is not None and (answer.size, answer.modified) == file_mark(item.path)


def _read(path: Path, mark: str) -> dict[str, Answer]:
    if not path.is_file():
        return {}
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
            answer = Answer(**{**fields, "logits": tuple(fields["logits"])})
        except (ValueError, TypeError, KeyError):  # the line a killed run was writing
            continue
        if answer.by == mark:
            known[answer.image_id] = answer
    return known
