"""A case as text in one language: the content that the HTML page and the PDF share."""

from collections.abc import Mapping
from dataclasses import dataclass

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case import Case
from glomerulab.cases.grading import FindingCount, ItemResult, RuleResult
from glomerulab.i18n.catalogue import Language, localized, translate, translate_count
from glomerulab.reports.case.model_rows import model_rows, slide_text
from glomerulab.reports.case.text import (
    OUTDATED_REASONS,
    call_name,
    grade_name,
    labels_name,
    utc_text,
)
from glomerulab.reports.case.warnings import CaseWarning, case_warnings

__all__ = ["case_view"]

# Colours that colour-blind readers can distinguish (Okabe and Ito), in the order of the labels.
COLOURS = ("#009E73", "#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#8A6D00", "#000000")
SEVERAL = "#6A3D9A"
GREY = "#5F6B76"

REVIEW_REASONS: Mapping[str, str] = {
    "uncertain": "the model is uncertain between labels",
    "out_of_focus": "less sharp than almost all training images",
    "out_of_distribution": "unlike the images the model was trained on",
    "no_tissue": "almost no tissue",
    "too_small": "too small to show a glomerulus",
    "no_glomerulus": "too unlike the training images to be taken for a glomerulus",
    "other_scale": "a scale far from that of the training images",
    "stain_unseen": "a stain the model was never trained on",
    "stain_unknown": "its stain is not stated (predict again with --stain)",
    "not_normalized": "colours could not be normalised",
}
"""The keys of `glomerulab.cases.calls.REASONS`, as short as a picture's caption."""


@dataclass(frozen=True)
class ItemRow:
    """One item of a rule set and its grade."""

    item: str
    name: str
    grade: str
    """Empty if it was not assessed."""
    share: str
    possible: str
    """Other possible grades, given the uncertain glomeruli."""
    labels: str
    """Names of the labels that it is based on, or what was measured."""
    reason: str
    """Why it was not assessed."""


@dataclass(frozen=True)
class RuleBlock:
    """One rule set."""

    name: str
    version: str
    source: str
    note: str
    too_few: str
    rows: tuple[ItemRow, ...]
    not_assessed: tuple[ItemRow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LabelRow:
    """The count of one label; in the first row that of all glomeruli."""

    name: str
    number: str
    share: str
    range: str
    by_model: str


@dataclass(frozen=True)
class TissueRow:
    """One measure of the outlined slides."""

    name: str
    value: str
    """With its range; "not assessed" if there is none."""
    basis: str
    """The slides, or why it is not assessed."""


@dataclass(frozen=True)
class ImageRow:
    """One image of a glomerulus; texts are empty where they do not apply."""

    number: int
    """As on the map."""
    call: GlomerulusCall
    group: str
    """Names of the labels that it is listed under."""
    colour: str
    model_labels: str
    """The model's call, if a person corrected or confirmed it."""
    is_changed: bool
    """Whether the correction differs from the call."""
    correction: str
    """Who made the correction, when and why."""
    probabilities: tuple[tuple[str, float], ...]
    """Label and probability, the highest first; none of an image that is not assessed."""
    review_reasons: tuple[str, ...]
    other_sections: str
    """Other slides of the same glomerulus, and what it is counted as."""


@dataclass(frozen=True)
class ImageGroup:
    """Images with the same labels, or those to review."""

    name: str
    n_images: str
    """How many, and how many of glomeruli on several sections."""
    members: tuple[ImageRow, ...]
    is_unsettled: bool = False
    """Whether these images are to be reviewed; they may have different labels."""

    @property
    def colour(self) -> str:
        """Of the labels; grey if they differ."""
        return GREY if self.is_unsettled else self.members[0].colour


@dataclass(frozen=True)
class CaseView:
    """The texts of a case."""

    title: str
    dates: str
    """When it was predicted, and last corrected."""
    headline: str
    summary: tuple[str, ...]
    warnings: tuple[CaseWarning, ...]
    rules: tuple[RuleBlock, ...]
    labels: tuple[LabelRow, ...]
    tissue: tuple[TissueRow, ...]
    """What outlines gave; empty without them."""
    images: tuple[ImageRow, ...]
    groups: tuple[ImageGroup, ...]
    """Images to review, then those of each label."""
    legend: tuple[tuple[str, str], ...]
    """Names of labels and their colours."""
    corrections: tuple[tuple[str, ...], ...]
    """Image, the model's labels, the person's, name, time and reason; outdated ones last."""
    model: tuple[tuple[str, str], ...]
    slides: tuple[tuple[str, str], ...]


def case_view(case: Case, language: Language) -> CaseView:
    """Return the texts of a case in a language."""
    images = _image_rows(case, language)
    in_order = sorted(images, key=lambda image: _gallery_order(case, image))
    groups: dict[str, list[ImageRow]] = {}
    for image in in_order:
        if not image.review_reasons:
            groups.setdefault(image.group, []).append(image)
    unsettled = [image for image in in_order if image.review_reasons]
    first = [(translate("To review", language), unsettled, True)] if unsettled else []
    settled = [(name, members, False) for name, members in groups.items()]
    return CaseView(
        title=f"{translate('report|Case', language)} {case.patient}",
        dates=_dates(case, language),
        headline=_headline(case, language),
        summary=_summary(case, language),
        warnings=case_warnings(case, language),
        rules=tuple(_rule_block(result, case, language) for result in case.summary.rules),
        labels=_label_rows(case, language),
        tissue=_tissue_rows(case, language),
        images=images,
        groups=tuple(
            ImageGroup(name, _n_images(members, language), tuple(members), is_unsettled)
            for name, members, is_unsettled in (*first, *settled)
        ),
        legend=tuple({image.group: image.colour for image in in_order}.items()),
        corrections=_corrections(case, language),
        model=model_rows(case.facts, language),
        slides=tuple((one.slide_id, slide_text(one)) for one in case.slides),
    )


def _dates(case: Case, language: Language) -> str:
    predicted = translate("Predicted {time}", language, time=utc_text(case.facts.created))
    if not case.corrections:
        return predicted
    last = max(utc_text(one.time) for one in case.corrections)
    return predicted + translate("; last corrected {time}", language, time=last)


def colour_of(labels: LabelSet, label_ids: tuple[str, ...]) -> str:
    """Return the colour ``#rrggbb`` of labels on maps, in galleries and in QuPath.

    All combinations share one colour; an image without labels is grey.
    """
    if not labels:
        return GREY
    if len(labels) > 1:
        return SEVERAL
    return COLOURS[label_ids.index(next(iter(labels))) % len(COLOURS)]


def _gallery_order(case: Case, image: ImageRow) -> tuple[int, str, int]:
    """Sort by label, then combinations of labels, then images without a glomerulus."""
    labels = case.labels_of(image.call)
    if labels is None:
        return (98 if case.is_not_assessed(image.call) else 99), image.group, image.number
    places = [case.taxonomy.label_ids.index(key) for key in labels]
    return (50 if len(places) != 1 else places[0]), image.group, image.number


def _headline(case: Case, language: Language) -> str:
    labels = [
        f"{one.n_with} {_within_sentence(localized(one.label, 'name', language), language)}"
        for one in case.summary.labels
        if one.n_with
    ]
    counted = translate(
        "headline|{glomeruli}: {labels}",
        language,
        glomeruli=translate_count(
            case.summary.n_glomeruli,
            "headline|{n} glomerulus",
            "headline|{n} glomeruli",
            language,
        ),
        labels=translate("clause|, ", language).join(labels)
        or translate("none to count", language),
    )
    n_several, n_none = case.summary.n_several_labels, case.summary.n_no_label
    if n_several:
        counted += translate("headline| ({n} with several labels)", language, n=n_several)
    if n_none:
        counted += translate("headline| ({n} with none of the labels)", language, n=n_none)
    if not case.summary.n_not_assessed:
        return counted
    return translate(
        "headline|{counted}; not assessed as glomeruli: {n}",
        language,
        counted=counted,
        n=case.summary.n_not_assessed,
    )


def _within_sentence(name: str, language: Language) -> str:
    return name.lower() if language == "en" else name


def _summary(case: Case, language: Language) -> tuple[str, ...]:
    s = case.summary
    images = translate_count(s.n_images, "{n} image", "{n} images", language)
    glomeruli = translate_count(s.n_referred, "{n} glomerulus", "{n} glomeruli", language)
    if s.n_slides:
        first = translate(
            "{images} on {slides}; {glomeruli} to review.",
            language,
            images=images,
            slides=translate_count(s.n_slides, "{n} slide", "{n} slides", language),
            glomeruli=glomeruli,
        )
    else:
        first = translate(
            "{images}; {glomeruli} to review.", language, images=images, glomeruli=glomeruli
        )
    if not s.n_on_several_sections:
        return (first,)
    several = translate_count(
        s.n_on_several_sections,
        "{n} glomerulus is on several sections and is counted once.",
        "{n} glomeruli are on several sections; each is counted once.",
        language,
    )
    return first, several


def _rule_block(result: RuleResult, case: Case, language: Language) -> RuleBlock:
    rules = result.rule_set
    rows = tuple(_item_row(one, case, language) for one in result.items)
    pairs = list(zip(result.items, rows, strict=True))
    warnings = dict.fromkeys(text[language] for one in result.items for text in one.warnings)
    return RuleBlock(
        name=localized(rules, "name", language),
        version=rules.version,
        source=rules.source,
        note=localized(rules, "note", language),
        too_few=_too_few(result, language),
        rows=tuple(row for one, row in pairs if one.grade is not None),
        not_assessed=tuple(row for one, row in pairs if one.grade is None),
        warnings=tuple(warnings),
    )


def _too_few(result: RuleResult, language: Language) -> str:
    least = result.rule_set.min_glomeruli
    if not result.has_enough:
        text = translate("fewer glomeruli than the source requires", language)
        return f"{text}{translate('sign|: ', language)}{result.n_glomeruli} < {least}"
    if result.may_have_too_few:
        text = translate("possibly fewer glomeruli than the source requires", language)
        return f"{text}{translate('sign|: ', language)}{result.n_range[0]} < {least}"
    return ""


def _item_row(result: ItemResult, case: Case, language: Language) -> ItemRow:
    names = {label.id: localized(label, "name", language) for label in case.taxonomy.labels}
    comma, semicolon = translate("sign|, ", language), translate("sign|; ", language)
    symbols = [localized(one, "grade", language) for one in reversed(result.possible)]
    possible = ""
    if symbols[1:]:
        possible = comma.join(symbols[:-1]) + translate("sign| or ", language) + symbols[-1]
    elif result.grade is None:
        possible = "".join(symbols)
    share = semicolon.join(_share(one, result.n_of, language) for one in result.counts)
    based_on = comma.join(names[key] for key in result.labels)
    if result.measured is not None:
        share = result.measured.text(language)
        based_on = f"{result.measured.name(language)} ({result.measured.basis[language]})"
    elif not share and result.grade is not None:
        share = str(result.n_of)
    return ItemRow(
        item=result.item.id,
        name=localized(result.item, "name", language),
        grade="" if result.grade is None else grade_name(result.grade, language),
        share=share,
        possible=possible,
        labels=based_on,
        reason="" if result.not_assessed is None else result.not_assessed[language],
    )


def _share(one: FindingCount, n_of: int, language: Language) -> str:
    names = translate("sign|, ", language).join(
        localized(finding, "name", language) for finding in one.findings
    )
    share = f"{one.n_with} / {n_of} ({round(100 * one.n_with / n_of, 1):g} %)"
    return f"{names}{translate('sign|: ', language)}{share}" if names else share


def _label_rows(case: Case, language: Language) -> tuple[LabelRow, ...]:
    summary, by_model = case.summary, case.model_summary
    rows = [
        LabelRow(
            translate("Glomeruli in all", language),
            str(summary.n_glomeruli),
            "–",
            _range(summary.n_range),
            str(by_model.n_glomeruli),
        )
    ]
    if summary.n_not_assessed or by_model.n_not_assessed:
        name = translate("Not assessed as glomeruli, not counted", language)
        n_now, n_before = summary.n_not_assessed, by_model.n_not_assessed
        rows.append(LabelRow(name, str(n_now), "–", f"0 – {n_now}", str(n_before)))
    for count, model_count in zip(summary.labels, by_model.labels, strict=True):
        share = "–"
        if count.interval is not None and count.share is not None:
            low, high = count.interval
            share = f"{round(100 * count.share, 1):g} % ({100 * low:.0f} – {100 * high:.0f} %)"
        rows.append(
            LabelRow(
                localized(count.label, "name", language),
                f"{count.n_with} / {count.n_of}",
                share,
                _range(count.n_range),
                str(model_count.n_with),
            )
        )
    return tuple(rows)


def _tissue_rows(case: Case, language: Language) -> tuple[TissueRow, ...]:
    if case.structures is None:
        return ()
    not_assessed = translate("Not assessed", language)
    return tuple(
        TissueRow(one.name(language), one.text(language) or not_assessed, one.basis[language])
        for one in case.structures.measures
    )


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low} – {high}"


def _n_images(members: list[ImageRow], language: Language) -> str:
    images = translate_count(len(members), "{n} image", "{n} images", language)
    n_shared = sum(one.other_sections != "" for one in members)
    if not n_shared:
        return images
    return translate(
        "{images}, {n} of glomeruli on several sections", language, images=images, n=n_shared
    )


def _other_sections(case: Case, call: GlomerulusCall, language: Language) -> str:
    others = case.other_slides_of(call)
    if not others:
        return ""
    return translate_count(
        len(others),
        "Glomerulus {number}, also on slide {slides}; counted as: {labels}",
        "Glomerulus {number}, also on slides {slides}; counted as: {labels}",
        language,
        number=case.glomerulus_numbers[call.image_id],
        slides=translate("sign|, ", language).join(others),
        labels=labels_name(case.glomerulus_of(call).labels, case.taxonomy, language),
    )


def _image_rows(case: Case, language: Language) -> tuple[ImageRow, ...]:
    names = {label.id: localized(label, "name", language) for label in case.taxonomy.labels}
    rows = []
    for number, call in enumerate(case.calls, start=1):
        entry = case.latest_corrections.get(call.image_id)
        labels = case.labels_of(call)
        model_labels = correction = ""
        if entry is not None:
            model_labels = call_name(call.called, case.taxonomy, language)
            colon = translate("sign|: ", language)
            correction = f"{entry.by}, {utc_text(entry.time)}{colon}{entry.reason}"
        by_probability = sorted(call.probabilities.items(), key=lambda item: -item[1])
        reasons = case.review_reasons_of(call)
        rows.append(
            ImageRow(
                number=number,
                call=call,
                group=translate("Not assessed as glomeruli", language)
                if case.is_not_assessed(call)
                else labels_name(labels, case.taxonomy, language),
                colour=colour_of(labels, case.taxonomy.label_ids),
                model_labels=model_labels,
                is_changed=entry is not None and entry.labels != call.called,
                correction=correction,
                # Of what is no glomerulus, a probability of a lesion means nothing.
                probabilities=()
                if call.called is None
                else tuple((names[key], value) for key, value in by_probability),
                review_reasons=tuple(translate(REVIEW_REASONS[key], language) for key in reasons),
                other_sections=_other_sections(case, call, language),
            )
        )
    return tuple(rows)


def _corrections(case: Case, language: Language) -> tuple[tuple[str, ...], ...]:
    calls = {call.image_id: call for call in case.calls}
    current = [
        (
            entry.image_id,
            call_name(calls[entry.image_id].called, case.taxonomy, language),
            labels_name(entry.labels, case.taxonomy, language),
            entry.by,
            utc_text(entry.time),
            entry.reason,
        )
        for entry in case.corrections
    ]
    outdated = [
        (
            entry.row.image_id,
            "–",
            f"{entry.row.labels} ({translate(OUTDATED_REASONS[entry.why], language)})",
            entry.row.by,
            utc_text(entry.row.time),
            entry.row.reason,
        )
        for entry in case.outdated
    ]
    return (*current, *outdated)
