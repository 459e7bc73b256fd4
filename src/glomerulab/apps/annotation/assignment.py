"""Who reads which image, and in which order: drawn by lot, balanced, and the same for one seed.

Pure values: no database here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glomerulab.apps.annotation.records import Purpose
from glomerulab.errors import AnnotationError

__all__ = ["Reading", "choose_readers", "order_readings"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One image in the queue of one annotator."""

    image_id: str
    purpose: Purpose


def choose_readers(
    n_missing: Mapping[str, int],
    loads: Mapping[str, int],
    *,
    readers: Mapping[str, frozenset[str]],
    seed: int,
) -> dict[str, list[str]]:
    """Give each image as many new readers as it lacks, always those with least to read.

    Parameters
    ----------
    n_missing : mapping of str to int
        How many readers each image lacks.
    loads : mapping of str to int
        How many images each annotator who can be chosen has to read already.
    readers : mapping of str to frozenset of str
        Who reads an image already, by image id; absent means nobody.
    seed : int

    Returns
    -------
    dict of str to list of str
        The new images of each annotator, in the order they were dealt.

    Raises
    ------
    AnnotationError
        If an image needs more readers than there are.

    Notes
    -----
    Images are dealt in random order, each to those with the fewest images so far, ties by lot: the
    loads of two annotators who could be given every image never differ by more than one.
    """
    rng = np.random.default_rng(_entropy(seed, "readers"))
    images = sorted(n_missing)
    now = dict(loads)
    dealt: dict[str, list[str]] = {login: [] for login in sorted(loads)}
    for place in rng.permutation(len(images)):
        image_id = images[place]
        free = sorted(set(now) - readers.get(image_id, frozenset()))
        if len(free) < n_missing[image_id]:
            already = len(readers.get(image_id, ()))
            raise AnnotationError(
                f"image {image_id!r} needs {n_missing[image_id] + already} annotators, there are "
                f"{len(free) + already}; add annotators or ask for fewer readers per image"
            )
        lots = dict(zip(free, rng.random(len(free)), strict=True))
        free.sort(key=lambda login: (now[login], lots[login]))
        for login in free[: n_missing[image_id]]:
            dealt[login].append(image_id)
            now[login] += 1
    return dealt


def order_readings(
    image_ids: Sequence[str], *, repeat_share: float, seed: int, login: str, batch: int
) -> list[Reading]:
    """Put the images of one annotator in random order, some of them twice.

    Parameters
    ----------
    image_ids : sequence of str
        The new images of the annotator, n of them.
    repeat_share : float
        From 0 to 0.5; the number of repeats is rounded to the nearest whole.
    seed : int
    login : str
        Each annotator has an order of their own.
    batch : int
        So that images added later are shuffled anew.

    Returns
    -------
    list of Reading
        The repeats are a random sample of the images. Each comes at least (n - n_repeats) / 2
        places after its first reading, among first readings as long as there are any, so that
        nothing tells it from them.
    """
    rng = np.random.default_rng(_entropy(seed, f"order {login} {batch}"))
    images = sorted(image_ids)
    order = [images[place] for place in rng.permutation(len(images))]
    n_repeats = int(np.floor(repeat_share * len(order) + 0.5))
    # The first of a random order are a random sample; they come back among the last of it.
    n_last = (len(order) - n_repeats) // 2
    first = [Reading(image_id, "first") for image_id in order]
    again = [Reading(image_id, "repeat") for image_id in order[:n_repeats]]
    mixed = first[len(first) - n_last :] + again
    shuffled = [mixed[place] for place in rng.permutation(len(mixed))]
    return first[: len(first) - n_last] + shuffled


def _entropy(seed: int, purpose: str) -> list[int]:
    """Make an independent stream of each purpose of one seed, the same on every machine."""
    digest = hashlib.sha256(purpose.encode("utf-8")).digest()
    return [abs(seed), int(seed < 0), int.from_bytes(digest[:8], "big")]
