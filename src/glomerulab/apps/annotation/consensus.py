"""Combine several readings of one image: disagreement, majority, soft and final labels.

A label that a reader sets denies those that it excludes: ``normal`` by one reader and ``cgn`` by
another is a disagreement, also where each left the other's label unknown.
"""

from collections.abc import Mapping, Sequence

from glomerulab.apps.annotation.records import ImageReadings, Labels
from glomerulab.i18n.catalogue import Language, translate
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


def incomplete_reasons(
    one: ImageReadings,
    *,
    n_readers: int,
    language: Language = "en",
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """Return why an image is incomplete, as sentences without a full stop.

    `names` are those of the readers by login, in place of the logins.
    """
    names = names or {}
    reasons = [
        translate(
            "{name} skipped it: {reason}",
            language,
            name=names.get(skip.login, skip.login),
            reason=skip_reason_text(skip.content.skip_reason or "", language),
        )
        for skip in one.skips
    ]
    reasons += [
        translate("{name} has not read it yet", language, name=names.get(login, login))
        for login in one.waiting
    ]
    reasons += [
        translate(
            "{name} left labels unknown", language, name=names.get(reading.login, reading.login)
        )
        for reading in one.readings
        if None in reading.content.labels.values()
    ]
    n_missing = n_readers - len(one.readings) - len(one.skips) - len(one.waiting)
    if n_missing > 0:
        reasons.append(translate("{n} of its readers are not assigned yet", language, n=n_missing))
    return reasons


def unsettled_reasons(
    images: Sequence[ImageReadings],
    taxonomy: Taxonomy,
    *,
    n_readers: int,
    language: Language = "en",
    names: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the reason why an image has no final labels yet, by image id.

    See `incomplete_reasons` for the other parameters.
    """
    found: dict[str, str] = {}
    for one in images:
        basis = final_labels(one, taxonomy, n_readers=n_readers)[1]
        if basis == "disagreed":
            found[one.image.image_id] = translate("its readers disagree", language)
        elif basis == "stale":
            found[one.image.image_id] = translate(
                "its readings changed after it was settled", language
            )
        elif basis == "incomplete":
            reasons = incomplete_reasons(one, n_readers=n_readers, language=language, names=names)
            found[one.image.image_id] = "; ".join(reasons)
    return found


def skip_reason_text(reason: str, language: Language) -> str:
    """Return the reason for a skip, of which the page's own words are translated."""
    head, colon, details = reason.partition(": ")
    return translate(head, language) + colon + details


def _votes(readings: Sequence[Labels], taxonomy: Taxonomy) -> dict[str, list[int]]:
    """Return the known values of each label, with what the exclusions imply."""
    complete = [taxonomy.implied(reading) for reading in readings]
    return {
        label_id: [flag for reading in complete if (flag := reading[label_id]) is not None]
        for label_id in taxonomy.label_ids
    }
