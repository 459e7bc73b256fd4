"""What several readings of one image come to: where they differ, and what a majority says.

Pure values: no database here.
"""

from collections.abc import Sequence

from glomerulab.apps.annotation.records import Labels, Outcome
from glomerulab.taxonomy import Taxonomy

__all__ = ["differing_labels", "final_labels", "majority_labels", "soft_labels"]


def differing_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the labels that one reading sets and another denies, in the order of the taxonomy.

    An unknown label differs from nothing.
    """
    return tuple(
        label_id for label_id in taxonomy.label_ids if len(set(_votes(readings, label_id))) == 2
    )


def majority_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, int | None] | None:
    """Return what more than half of those who judged a label say of it, for every label.

    Parameters
    ----------
    readings : sequence of mapping
        Labels of each reading, absent or None for unknown.
    taxonomy : Taxonomy

    Returns
    -------
    dict of str to int or None, or None
        A label that nobody judged is None, unknown. None for the whole where a label has as many
        votes for as against it, where the majorities exclude each other, or where no label at all
        has a majority although every reader set one: three readers who each see another lesion
        do not make an image without lesions.
    """
    labels: dict[str, int | None] = {}
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        if votes and 2 * sum(votes) == len(votes):
            return None
        labels[label_id] = int(2 * sum(votes) > len(votes)) if votes else None
    all_saw_something = all(1 in reading.values() for reading in readings)
    if taxonomy.conflicts(labels) or (1 not in labels.values() and all_saw_something):
        return None
    return labels


def soft_labels(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, float | None]:
    """Return the share of those who judged a label that set it; None where nobody judged it."""
    shares: dict[str, float | None] = {}
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        shares[label_id] = sum(votes) / len(votes) if votes else None
    return shares


def final_labels(
    outcome: Outcome, taxonomy: Taxonomy, *, n_readers: int
) -> tuple[dict[str, int | None], str]:
    """Return what an image is labelled in the end, and on what grounds.

    Parameters
    ----------
    outcome : Outcome
    taxonomy : Taxonomy
    n_readers : int
        How many readings an image needs before their agreement counts.

    Returns
    -------
    labels : dict of str to int or None
        All None, unknown, while nothing is settled.
    grounds : str
        ``majority``, ``third_reader`` or ``consensus`` as adjudicated; ``agreed`` if all readings
        say the same; else ``disagreed``, ``incomplete``, or ``stale``: a reading was changed or
        added after the image was settled.
    """
    unknown: dict[str, int | None] = dict.fromkeys(taxonomy.label_ids)
    if outcome.stale:
        return unknown, "stale"
    if outcome.adjudication is not None:
        return {**unknown, **outcome.adjudication.labels}, outcome.adjudication.method
    readings = [reading.judgement.labels for reading in outcome.readings]
    if differing_labels(readings, taxonomy):
        return unknown, "disagreed"
    if len(readings) < n_readers:
        return unknown, "incomplete"
    for label_id in taxonomy.label_ids:
        votes = _votes(readings, label_id)
        unknown[label_id] = votes[0] if votes else None
    return unknown, "agreed"


def _votes(readings: Sequence[Labels], label_id: str) -> list[int]:
    said = (reading.get(label_id) for reading in readings)
    return [value for value in said if value is not None]
