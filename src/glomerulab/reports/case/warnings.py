"""Warnings to be read before the numbers of a case: one list for every format."""

from collections.abc import Callable
from dataclasses import dataclass

from glomerulab.cases.case import Case
from glomerulab.cases.counting import is_bare_number
from glomerulab.i18n.catalogue import Language, localized, translate, translate_count
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.case.text import outdated_text
from glomerulab.structures.classes import KNOWN_STRUCTURES

MAX_LISTED = 12


@dataclass(frozen=True)
class CaseWarning:
    """A limitation of the numbers of a case."""

    kind: str
    """The same in every language, such as ``proposed`` or ``not_judged``."""
    title: str
    text: str
    is_severe: bool

    @property
    def sentence(self) -> str:
        """Title and text as English prose."""
        return f"{self.title}. {self.text}"


def case_warnings(
    case: Case, language: Language, *, max_listed: int | None = MAX_LISTED
) -> tuple[CaseWarning, ...]:
    """Return the warnings of a case, the most important first, and the notes of its predictions."""
    makers: tuple[Callable[[Case, Language, int | None], CaseWarning | None], ...] = (
        _edited,
        _synthetic_model,
        _no_calls,
        _proposed,
        _failures,
        _not_assessed,
        _outdated,
        _unmatched,
        _not_reviewed,
        _bare_numbers,
        _few,
        _one_label,
        _label_sum,
        _corrected,
        _not_as_written,
    )
    found = [made for make in makers if (made := make(case, language, max_listed)) is not None]
    title = translate("Note", language)
    notes = [
        CaseWarning("note", title, note.text(language), is_severe=False) for note in case.notes
    ]
    return (*found, *notes, *_of_outlines(case, language))


def _of_outlines(case: Case, language: Language) -> list[CaseWarning]:
    """Return the notes of the outlined slides, on which shares and the T score rest."""
    title = translate("Cortex and tissue", language)
    found = []
    told = {note.en for note in case.notes}
    if case.facts.detector is not None and any(call.is_proposed for call in case.calls):
        told.add(case.facts.detector.test_summary)
    for note in () if case.structures is None else case.structures.notes:
        if note in told:
            continue
        text = translate_filled(note, language, "predict", names=_structure_names)
        text = translate_filled(text, language, "evaluation", names=_structure_names)
        found.append(CaseWarning("note", title, text, is_severe=False))
    return found


def _structure_names() -> dict[str, str]:
    names = {one.name: one.name_in("zh") for one in KNOWN_STRUCTURES}
    return names | {name.lower(): chinese for name, chinese in names.items()}


EDITS: dict[str, tuple[str, str]] = {
    "missing": ("{n} row is missing: {names}", "{n} rows are missing: {names}"),
    "added": ("{n} row was added: {names}", "{n} rows were added: {names}"),
    "changed": ("{n} row was changed: {names}", "{n} rows were changed: {names}"),
    "call": (
        "{n} call does not follow from its probabilities: {names}",
        "{n} calls do not follow from their probabilities: {names}",
    ),
    "reading": (
        "{n} image has states or reasons that do not follow from its numbers: {names}",
        "{n} images have states or reasons that do not follow from their numbers: {names}",
    ),
    "correction": (
        "{n} correction was removed from overrides.csv or changed there: {names}",
        "{n} corrections were removed from overrides.csv or changed there: {names}",
    ),
    "picture": ("{n} picture was changed: {names}", "{n} pictures were changed: {names}"),
}


LOST_ELSEWHERE = (
    "{n} correction was removed from overrides.csv or changed there",
    "{n} corrections were removed from overrides.csv or changed there",
)
"""Of an image that no case has; it may be another patient's, so that it is not named."""


def _edited(case: Case, language: Language, max_listed: int | None) -> CaseWarning | None:
    """Warn of files that a person changed since the model made them."""
    parts = [
        translate_count(
            len(one.names),
            *(EDITS[one.kind] if one.case else LOST_ELSEWHERE),
            language,
            names=_listed(one.names, language, max_listed),
        )
        for one in case.edits
        if one.kind in EDITS
    ]
    if any(one.kind == "order" for one in case.edits):
        parts.append(translate("the rows of overrides.csv have another order", language))
    if any(one.kind == "facts" for one in case.edits):
        parts.append(translate("case.json was changed", language))
    if not parts:
        return None
    return CaseWarning(
        "edited",
        translate("The predictions were changed after the model made them", language),
        translate(
            "Their numbers are not those of the model alone. {edits}.",
            language,
            edits=translate("sign|; ", language).join(parts),
        ),
        is_severe=True,
    )


def _not_as_written(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    kinds = {one.kind for one in case.edits}
    if "saved" in kinds:
        return CaseWarning(
            "saved_again",
            translate("Another program saved predictions.csv", language),
            translate("Every call and probability in it is as the model gave it.", language),
            is_severe=False,
        )
    if "unrecorded" in kinds:
        return CaseWarning(
            "unrecorded",
            translate("Predictions of an earlier version", language),
            translate(
                "They hold no record of their files, so that later changes cannot be seen.",
                language,
            ),
            is_severe=False,
        )
    return None


def _synthetic_model(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    if not case.facts.model.trained_on_synthetic:
        return None
    return CaseWarning(
        "synthetic_model",
        translate("The model was trained on synthetic images", language),
        translate("Its calls do not apply to patients.", language),
        is_severe=True,
    )


def _no_calls(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    if case.calls:
        return None
    return CaseWarning(
        "nothing_judged",
        translate("No image could be evaluated", language),
        translate(
            "Every count is 0 because there is no image; this does not mean that there are no "
            "lesions.",
            language,
        ),
        is_severe=True,
    )


def _proposed(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    n_proposed = sum(call.is_proposed for call in case.calls)
    if not n_proposed:
        return None
    detector = case.facts.detector
    performance = "" if detector is None else localized(detector, "test_summary", language)
    performance = performance or translate(
        "It is not known how well it finds glomeruli, since it was not scored on images that it "
        "never saw.",
        language,
    )
    return CaseWarning(
        "proposed",
        translate(
            "{n_proposed} of {n} regions were proposed by a detector",
            language,
            n_proposed=n_proposed,
            n=len(case.calls),
        ),
        translate(
            "No person drew them. The detector may have missed glomeruli, mistaken other "
            "tissue for one, or counted one again on each section: numbers, shares and "
            "adequacy depend on what it found. {performance}",
            language,
            performance=performance,
        ).rstrip(),
        is_severe=True,
    )


def _failures(case: Case, language: Language, max_listed: int | None) -> CaseWarning | None:
    names = case.failures
    if not names:
        return None
    return CaseWarning(
        "not_judged",
        translate_count(
            len(names),
            "{n} region, image or slide could not be evaluated",
            "{n} regions, images or slides could not be evaluated",
            language,
        ),
        translate(
            "Not counted: {names}. See failures.csv.",
            language,
            names=_listed(names, language, max_listed),
        ),
        is_severe=True,
    )


def _not_assessed(case: Case, language: Language, max_listed: int | None) -> CaseWarning | None:
    n = case.summary.n_not_assessed
    if not n:
        return None
    names = tuple(
        call.region_id or call.image_id for call in case.calls if case.is_not_assessed(call)
    )
    text = translate(
        "They hold almost no tissue, are too small, or are too unlike the training images: "
        "{names}. They are neither called nor counted. Say what each one shows; a glomerulus is "
        "counted then.",
        language,
        names=_listed(names, language, max_listed),
    )
    if n > case.summary.n_glomeruli:
        space = " " if language == "en" else ""
        text += space + translate(
            "These are most of the regions: if they are glomeruli, this model does not fit these "
            "images.",
            language,
        )
    return CaseWarning(
        "not_assessed",
        translate_count(
            n,
            "{n} region is not assessed as a glomerulus",
            "{n} regions are not assessed as glomeruli",
            language,
        ),
        text,
        is_severe=True,
    )


def _outdated(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    if not case.outdated:
        return None
    entries = [outdated_text(one, language) for one in case.outdated]
    return CaseWarning(
        "lost_changes",
        translate_count(
            len(entries),
            "{n} correction no longer applies",
            "{n} corrections no longer apply",
            language,
        ),
        translate(
            "Not counted, but still in overrides.csv: {entries}. Review the image as it is "
            "now and correct it again.",
            language,
            entries=translate("sign|; ", language).join(entries),
        ),
        is_severe=True,
    )


def _unmatched(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    n = len(case.unmatched)
    if not n:
        return None
    return CaseWarning(
        "lost_changes",
        translate_count(
            n,
            "{n} correction matches no case",
            "{n} corrections match no case",
            language,
        ),
        translate(
            "Their images are on no slide of these predictions and may be another "
            "patient's, so they are not named here. They are not counted; see "
            "overrides.csv.",
            language,
        ),
        is_severe=True,
    )


def _not_reviewed(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    n = case.summary.n_referred
    if not n:
        return None
    return CaseWarning(
        "not_settled",
        translate_count(n, "{n} glomerulus needs review", "{n} glomeruli need review", language),
        translate(
            "Results may change after review; the reason is given beside each image.", language
        ),
        is_severe=True,
    )


def _bare_numbers(case: Case, language: Language, max_listed: int | None) -> CaseWarning | None:
    """Warn of regions with the same number on several slides, which are not joined."""
    slides: dict[str, set[str]] = {}
    for call in case.calls:
        if call.region_id is not None and is_bare_number(call.region_id):
            slides.setdefault(call.region_id, set()).add(call.slide_id)
    names = tuple(name for name, found in slides.items() if len(found) > 1)
    if not names:
        return None
    return CaseWarning(
        "numbered",
        translate_count(
            len(names),
            "{n} region number occurs on several slides and is counted on each",
            "{n} region numbers occur on several slides and are counted on each",
            language,
        ),
        translate(
            "Regions called {names}: a bare number joins no sections, as programs number regions "
            "by themselves. If equal numbers are one glomerulus, it was counted more than once: "
            "name the regions with a letter (g7) and predict again.",
            language,
            names=_listed(names, language, max_listed),
        ),
        is_severe=False,
    )


def _few(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    if not case.summary.is_small:
        return None
    return CaseWarning(
        "few",
        translate("Fewer than 25 glomeruli", language),
        translate("Percentages are unreliable: read the intervals.", language),
        is_severe=False,
    )


def _one_label(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    if case.facts.model.head != "softmax" or not case.calls:
        return None
    return CaseWarning(
        "one_label",
        translate("The model names one label per glomerulus", language),
        translate(
            "It names the likeliest, and no second lesion of the same glomerulus: counts of the "
            "others may be too low.",
            language,
        ),
        is_severe=False,
    )


def _label_sum(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    n_several, n_none = case.summary.n_several_labels, case.summary.n_no_label
    if not n_several and not n_none:
        return None
    return CaseWarning(
        "label_sum",
        translate("The numbers of the labels do not add up to that of the glomeruli", language),
        translate(
            "Glomeruli with several labels, counted under each: {n_several}. Glomeruli with none "
            "of the labels: {n_none}.",
            language,
            n_several=n_several,
            n_none=n_none,
        ),
        is_severe=False,
    )


def _corrected(case: Case, language: Language, _max: int | None) -> CaseWarning | None:
    n_confirmed = len(case.confirmed_images)
    n_changed = len(case.latest_corrections) - n_confirmed
    changed = translate_count(n_changed, "{n} call changed", "{n} calls changed", language)
    confirmed = translate_count(n_confirmed, "{n} call confirmed", "{n} calls confirmed", language)
    if n_changed and n_confirmed:
        title = translate(
            "{changed} and {confirmed} by a person",
            language,
            changed=changed,
            confirmed=confirmed,
        )
    elif n_changed or n_confirmed:
        title = translate(
            "{calls} by a person", language, calls=changed if n_changed else confirmed
        )
    else:
        return None
    text = translate("Counts use the person's labels; the model's call is still shown.", language)
    return CaseWarning("seen", title, text, is_severe=False)


def _listed(names: tuple[str, ...], language: Language, most: int | None) -> str:
    listed = translate("sign|, ", language).join(names[:most])
    return listed + (" …" if most is not None and len(names) > most else "")
