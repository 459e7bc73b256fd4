"""Texts of case reports: labels, grades, times and recurring sentences in a language."""

import datetime as dt
import re
from collections.abc import Mapping

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.corrections import OutdatedCorrection, parse_time
from glomerulab.cases.rules import Grade
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.taxonomy import Taxonomy

__all__ = ["outdated_text"]

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."
SYNTHETIC = "SYNTHETIC DATA: the images were rendered by a program and show no patient."
OUTDATED_REASONS: Mapping[str, str] = {
    "no_image": "these predictions hold no such image",
    "moved": "the region of that name lies elsewhere now",
    "other_labels": "the model does not have these labels",
    "superseded": "a later change of the same image no longer applies either",
}
"""By `OutdatedCorrection.why`."""


def labels_name(labels: LabelSet, taxonomy: Taxonomy, language: Language) -> str:
    """Return the names of labels, such as ``Segmental sclerosis + Crescent``."""
    if labels is None:
        return translate("not a glomerulus", language)
    names = [localized(one, "name", language) for one in taxonomy.labels if one.id in labels]
    return " + ".join(names) or translate("none of the labels", language)


def call_name(labels: LabelSet, taxonomy: Taxonomy, language: Language) -> str:
    """Return what the model called, or that it assessed no glomerulus."""
    if labels is None:
        return translate("not assessed as a glomerulus", language)
    return labels_name(labels, taxonomy, language)


def grade_name(grade: Grade, language: Language) -> str:
    """Return a grade with its meaning, such as ``IV-like (diffuse, 50 % or more)``."""
    symbol, meaning = localized(grade, "grade", language), localized(grade, "name", language)
    if not meaning:
        return symbol
    return translate("grade|{symbol} ({meaning})", language, symbol=symbol, meaning=meaning)


def utc_text(time: str) -> str:
    """Return an ISO 8601 time in UTC, to the minute; unchanged if it is invalid.

    Examples
    --------
    >>> utc_text("2026-11-25T12:18:09+08:00")
    '2026-11-25 04:18 UTC'
    """
    when = parse_time(time)
    return time if when is None else f"{when.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def outdated_text(entry: OutdatedCorrection, language: Language) -> str:
    """Return an outdated correction and the reason, such as ``b = cgn (Dr Li, …): …``."""
    row = entry.row
    correction = f"{row.image_id} = {row.labels} ({row.by}, {utc_text(row.time)})"
    reason = translate(OUTDATED_REASONS[entry.why], language)
    return f"{correction}{translate('sign|: ', language)}{reason}"


def translations_in(source: str, function: str, language: Language) -> dict[str, str]:
    """Return the translations of the texts that a script passes to a function, by English text."""
    texts = re.findall(rf'\b{function}\("([^"]*)"\)', source)
    return {text: translate(text, language) for text in texts}
