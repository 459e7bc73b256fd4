"""What a model finds in images: read on several processes, shown to it in batches, in order.

An image that cannot be read is a failure beside the others and stops nothing. Answers to the images
of a manifest are kept line by line, so that a run resumes.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.inference.calibration import Gates
from glomerulab.inference.decide import NOT_FINITE
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.sharpness import sharpness
from glomerulab.models.card import ModelCard
from glomerulab.runtime.files import size_and_mtime
from glomerulab.runtime.parallel import Outcome, map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = [
    "ANSWERS_FILE",
    "Answer",
    "Finding",
    "ImageToAnswer",
    "Shown",
    "answer_manifest",
    "answer_shown",
    "read_batches",
    "shown_to",
    "to_answer",
]

ANSWERS_FILE = "answers.jsonl"
BATCH = 16
SAME_MPP = 0.02
MAX_ENLARGED_PX = 4096
"""Side of what sharpness is measured on where an image is enlarged for it."""


class ImageToAnswer(NamedTuple):
    """One image file, and what is known of its scale."""

    place: int
    """In the order of the manifest."""
    image_id: str
    path: Path
    mpp: float | None


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


def answer_manifest(
    manifest: Manifest,
    engine: Engine,
    gates: Gates,
    folder: Path,
    *,
    mark: str | None = None,
    n_workers: int = 1,
    track: Track = silent,
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Answer every image, except those that were answered before by the same model.

    Parameters
    ----------
    manifest : Manifest
    engine : Engine
    gates : Gates
    folder : Path
        Where ``answers.jsonl`` is kept.
    mark : str, optional
        Tells these answers from those of another model, or of another way to ask it; by default
        that of the gates.
    n_workers : int, default 1
        Processes that decode images.
    track : Track, optional

    Returns
    -------
    answers : dict of str to Answer
        By image id, of the images of the manifest that could be read and answered in numbers.
    failures : dict of str to str
        Why the others could not.
    """
    path, mark = folder / ANSWERS_FILE, mark or gates.mark
    known = _known(path, mark)
    items = to_answer(manifest)
    waiting = [item for item in items if not _is_done(item, known.get(item.image_id))]
    failed: list[Outcome[ImageToAnswer, Shown]] = []
    with path.open("a", encoding="utf-8") as lines:
        lines.write("\n")  # ends the line that a killed run may have left
        for batch in read_batches(waiting, engine.card, failed, n_workers=n_workers, track=track):
            found = answer_shown([shown for _, shown in batch], engine, gates)
            for (item, _), finding in zip(batch, found, strict=True):
                size, modified = size_and_mtime(item.path)
                answer = Answer(
                    item.image_id,
                    mark,
                    size,
                    modified,
                    finding.logits,
                    finding.distance,
                    finding.sharpness,
                )
                known[answer.image_id] = answer
                lines.write(json.dumps(asdict(answer)) + "\n")
            lines.flush()
    failures = {one.item.image_id: str(one.error) for one in failed}
    wanted = {item.image_id for item in items} - set(failures)
    found_all = {key: answer for key, answer in known.items() if key in wanted}
    failures |= {
        key: NOT_FINITE for key, one in found_all.items() if not np.isfinite(one.logits).all()
    }
    return {key: one for key, one in found_all.items() if key not in failures}, failures


def to_answer(manifest: Manifest) -> list[ImageToAnswer]:
    """Return the images of a manifest, in its order."""
    table = manifest.table
    rows = zip(table["image_id"], manifest.image_paths(), table["mpp"], strict=True)
    return [
        ImageToAnswer(place, str(image_id), path, None if pd.isna(mpp) else float(mpp))
        for place, (image_id, path, mpp) in enumerate(rows)
    ]


def read_batches(
    items: Sequence[ImageToAnswer],
    card: ModelCard,
    failures: list[Outcome[ImageToAnswer, Shown]],
    *,
    batch_size: int = BATCH,
    n_workers: int = 1,
    track: Track = silent,
) -> Iterator[list[tuple[ImageToAnswer, Shown]]]:
    """Read image files and make of them what a network is shown.

    Parameters
    ----------
    items : sequence of ImageToAnswer
    card : ModelCard
    failures : list of Outcome
        Gets the images that cannot be read, each with its error.
    batch_size : int, default 16
    n_workers : int, default 1
        Processes that decode images.
    track : Track, default silent

    Yields
    ------
    list of tuple of ImageToAnswer and Shown
        One batch; the same batches whatever the number of processes.
    """
    batch: list[tuple[ImageToAnswer, Shown]] = []
    read = partial(_read, card=card)
    with closing(map_outcomes(read, items, n_workers=n_workers)) as outcomes:
        for outcome in track(_in_order(outcomes, items), "Predicting", len(items)):
            if outcome.value is None:
                failures.append(outcome)
                continue
            batch.append((outcome.item, outcome.value))
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


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


def _read(item: ImageToAnswer, *, card: ModelCard) -> Shown:
    return shown_to(card, read_image(item.path), item.mpp)


def _in_order(
    outcomes: Iterator[Outcome[ImageToAnswer, Shown]], items: Sequence[ImageToAnswer]
) -> Iterator[Outcome[ImageToAnswer, Shown]]:
    """Give outcomes in the order of the items, whichever process was faster."""
    waiting: dict[ImageToAnswer, Outcome[ImageToAnswer, Shown]] = {}
    places = iter(items)
    wanted = next(places, None)
    for outcome in outcomes:
        waiting[outcome.item] = outcome
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted = next(places, None)


def _at_mpp(image: RgbImage, mpp: float | None, wanted: float | None) -> RgbImage:
    """Bring an image to the model's scale, on which its sharpness can be compared."""
    if mpp is None or wanted is None or abs(mpp / wanted - 1) < SAME_MPP:
        return image
    factor = mpp / wanted
    if factor > 1:
        # What a stated scale would enlarge without bounds is measured in its middle alone.
        most = max(int(MAX_ENLARGED_PX / factor), 3)
        image = image[_middle(image.shape[0], most), _middle(image.shape[1], most)]
    height, width = (max(round(side * factor), 3) for side in image.shape[:2])
    return resized(image, width, height)


def _middle(length: int, most: int) -> slice:
    start = max(length - most, 0) // 2
    return slice(start, start + most)


def _is_done(item: ImageToAnswer, answer: Answer | None) -> bool:
    return answer is not None and (answer.size, answer.modified) == size_and_mtime(item.path)


def _known(path: Path, mark: str) -> dict[str, Answer]:
    """Read the answers of an earlier run that are of the same model."""
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
