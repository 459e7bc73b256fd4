"""Combine several readings of one image: disagreement, majority, soft and final labels."""

from collections.abc import Sequence

from glomerulab.apps.annotation.records import ImageReadings, Labels
from glomerulab.taxonomy import Taxonomy


def differing_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the labels that one reading sets and another denies, in the order of the taxonomy.

    An unknown label disagrees with nothing.
    """
    return tuple(
        label_id for label_id in taxonomy.label_ids if len(set(_votes(readings, label_id))) == 2
    )


def majority_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, int | None] | None:
    """Return the value that more than half of the votes give each label."""
    labels: dict[str, int | None] = {}
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        if votes and 2 * sum(votes) == len(votes):
            return None
        labels[label_id] = int(2 * sum(votes) > len(votes)) if votes else None
    every_reader_set_one = all(1 in reading.values() for reading in readings)
    if taxonomy.conflicts(labels) or (1 not in labels.values() and every_reader_set_one):
        return None
    return labels


def soft_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, float | None]:
    """Return the share of votes that set each label; None for a label without votes."""
    shares: dict[str, float | None] = {}
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        shares[label_id] = sum(votes) / len(votes) if votes else None
    return shares


def final_labels(
    found: ImageReadings, taxonomy: Taxonomy, *, n_readers: int
) -> tuple[dict[str, int | None], str]:
    """Return the final labels of an image and their basis."""
    labels: dict[str, int | None] = dict.fromkeys(taxonomy.label_ids)
    if found.stale:
        return labels, "stale"
    if found.adjudication is not None:
        return {**labels, **found.adjudication.labels}, found.adjudication.method
    readings = [reading.content.labels for reading in found.readings]
    if differing_labels(readings, taxonomy):
        return labels, "disagreed"
    if len(readings) < n_readers:
        return labels, "incomplete"
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        labels[label_id] = votes[0] if votes else None
    return labels, "agreed"


def _votes(readings: Sequence[Labels], label_id: str) -> list[int]:
    values = (reading.get(label_id) for reading in readings)
    return [value for value in values if value is not None]
