"""Combine several readings of one image: disagreement, majority, soft and final labels.

A label that a reader sets denies those that it excludes: ``normal`` by one reader and ``cgn`` by
another is a disagreement, also where each left the other's label unknown.
"""

from collections.abc import Sequence

from glomerulab.apps.annotation.records import ImageReadings, Labels
from glomerulab.taxonomy import Taxonomy


def differing_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the labels that one reading sets and another denies, in the order of the taxonomy.

    An unknown label disagrees with nothing.
    """
    votes = _votes(readings, taxonomy)
    return tuple(label_id for label_id, given in votes.items() if len(set(given)) == 2)


def majority_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, int | None] | None:
    """Return the value that more than half of the votes give each label."""
    labels: dict[str, int | None] = {}
    for label_id, votes in _votes(readings, taxonomy).items():
        if votes and 2 * sum(votes) == len(votes):
            return None
        labels[label_id] = int(2 * sum(votes) > len(votes)) if votes else None
    every_reader_set_one = all(1 in reading.values() for reading in readings)
    if taxonomy.conflicts(labels) or (1 not in labels.values() and every_reader_set_one):
        return None
    return labels


def soft_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, float | None]:
    """Return the share of votes that set each label; None for a label without votes."""
    return {
        label_id: sum(votes) / len(votes) if votes else None
        for label_id, votes in _votes(readings, taxonomy).items()
    }


def final_labels(
    found: ImageReadings, taxonomy: Taxonomy, *, n_readers: int
) -> tuple[dict[str, int | None], str]:
    """Return the final labels of an image and their basis.

    Readers agree where enough of them gave every label, all the same and none against the taxonomy.
    """
    unknown: dict[str, int | None] = dict.fromkeys(taxonomy.label_ids)
    if found.stale:
        return unknown, "stale"
    if found.adjudication is not None:
        labels = {**unknown, **found.adjudication.labels}
        return labels, found.adjudication.method
    votes = _votes([reading.content.labels for reading in found.readings], taxonomy)
    agreed = {label_id: given[0] for label_id, given in votes.items() if given}
    if any(len(set(given)) == 2 for given in votes.values()) or taxonomy.conflicts(agreed):
        return unknown, "disagreed"
    if any(len(given) < n_readers for given in votes.values()):
        return unknown, "incomplete"
    return dict(agreed), "agreed"


def _votes(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, list[int]]:
    """Return the known values of each label, with what the exclusions imply."""
    complete = [taxonomy.implied(reading) for reading in readings]
    return {
        label_id: [flag for reading in complete if (flag := reading[label_id]) is not None]
        for label_id in taxonomy.label_ids
    }
