"""A case as pages show it: every cell as text in one language, used by HTML and PDF alike."""

from dataclasses import dataclass

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case import Case
from glomerulab.cases.grading import FindingCount, ItemResult, RuleResult
from glomerulab.reports.case.model_rows import model_rows
from glomerulab.reports.case.warnings import CaseWarning, case_warnings
from glomerulab.reports.case.words import (
    Language,
    grade_name,
    grade_sign,
    moment,
    name_of,
    reading_words,
    words,
)
from glomerulab.runtime.messages import count_noun

__all__ = [
    "CaseView",
    "GlomerulusRow",
    "Group",
    "ItemRow",
    "LabelRow",
    "RuleBlock",
    "case_view",
    "colour_of",
]


@dataclass(frozen=True)
class ItemRow:
    """One question and its answer."""

    item: str
    name: str
    grade: str
    """Empty where it was not assessed."""
    share: str
    possible: str
    """Other grades that the doubts allow; empty if there is none."""
    rests_on: str
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
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class LabelRow:
    """One label's count; in the first row that of all glomeruli."""

    name: str
    number: str
    share: str
    range: str
    by_model: str


@dataclass(frozen=True)
class GlomerulusRow:
    """One image of a glomerulus, numbered as on the map."""

    number: int
    call: GlomerulusCall
    group: str
    """The reading it is shown under."""
    colour: str
    original: str
    """The model's call where a person spoke; else empty."""
    is_changed: bool
    """Whether the person said otherwise than the model."""
    said: str
    """Who said so, when and why; else empty."""
    chances: tuple[tuple[str, float], ...]
    """Label and probability, likeliest first."""
    reasons: tuple[str, ...]
    """Why a human must look; empty once one has."""
    shared: str
    """Where else the same glomerulus stands, and what it counts as; empty if nowhere."""


@dataclass(frozen=True)
class Group:
    """Images that show the same."""

    name: str
    n_images: str
    """How many, and how many of glomeruli that stand on several sections."""
    members: tuple[GlomerulusRow, ...]


@dataclass(frozen=True)
class CaseView:
    """Everything a page says of a case."""

    title: str
    headline: str
    summary: tuple[str, ...]
    warnings: tuple[CaseWarning, ...]
    rules: tuple[RuleBlock, ...]
    labels: tuple[LabelRow, ...]
    shown: tuple[GlomerulusRow, ...]
    groups: tuple[Group, ...]
    model: tuple[tuple[str, str], ...]
    slides: tuple[tuple[str, str], ...]


# Colours that colour-blind readers tell apart (Okabe and Ito), the first for what is listed first.
COLOURS = ("#009E73", "#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#8A6D00", "#000000")
SEVERAL = "#6A3D9A"
GREY = "#5F6B76"


def colour_of(reading: LabelSet, label_ids: tuple[str, ...]) -> str:
    """Return the colour a reading has on maps, in galleries and in QuPath.

    Parameters
    ----------
    reading : reading
    label_ids : tuple of str
        Of the taxonomy, in order.

    Returns
    -------
    str
        ``#rrggbb``; one colour for any combination, grey for none.
    """
    if not reading:
        return GREY
    if len(reading) > 1:
        return SEVERAL
    return COLOURS[label_ids.index(next(iter(reading))) % len(COLOURS)]


def case_view(case: Case, language: Language) -> CaseView:
    """Put a case into words.

    Parameters
    ----------
    case : ReportedCase
    language : {"en", "zh"}

    Returns
    -------
    CaseView
    """
    phrase = words(language)
    shown = _shown(case, language)
    groups: dict[str, list[GlomerulusRow]] = {}
    for one in sorted(shown, key=lambda one: _order(case, one)):
        groups.setdefault(one.group, []).append(one)
    summary = case.summary
    return CaseView(
        title=f"{phrase['case']} {case.patient}",
        headline=_headline(case, language),
        summary=_summary(case, language),
        warnings=case_warnings(case, language),
        rules=tuple(_rule_block(result, case, language) for result in summary.rules),
        labels=_label_rows(case, language),
        shown=shown,
        groups=tuple(
            Group(name, _n_images(members, language), tuple(members))
            for name, members in groups.items()
        ),
        model=model_rows(case.facts, language),
        slides=tuple(
            (
                one.slide_id,
                f"{one.stain or '?'}, {one.width} × {one.height} px"
                + (f", {one.mpp:.3g} µm/px" if one.mpp else ""),
            )
            for one in case.slides
        ),
    )


def _order(case: Case, one: GlomerulusRow) -> tuple[int, str, int]:
    reading = case.reading_of(one.call)
    if reading is None:
        return 99, one.group, one.number
    places = [case.taxonomy.label_ids.index(key) for key in reading]
    return (50 if len(places) != 1 else places[0]), one.group, one.number


def _headline(case: Case, language: Language) -> str:
    summary = case.summary
    parts = [f"{one.n_with} {name_of(one.label, language)}" for one in summary.labels if one.n_with]
    if language == "zh":
        listed = "，".join(parts) or "无可计数"
        return f"{summary.n_glomeruli}{words(language)['glomeruli']}：{listed}"
    listed = ", ".join(part[:1] + part[1:].lower() for part in parts) or "none to count"
    return f"{count_noun(summary.n_glomeruli, 'glomerulus', 'glomeruli')}: {listed}"


def _summary(case: Case, language: Language) -> tuple[str, ...]:
    s = case.summary
    if language == "zh":
        slides = f"{s.n_slides} 张切片，" if s.n_slides else ""
        first = f"{slides}{s.n_images} 幅图像；{s.n_referred} 个肾小球需人工复核。"
        several = f"{s.n_on_several_sections} 个肾小球出现在多张切片上，各计一次。"
    else:
        look = count_noun(s.n_referred, "glomerulus", "glomeruli")
        stand = count_noun(s.n_on_several_sections, "glomerulus stands", "glomeruli stand")
        slides = f" on {count_noun(s.n_slides, 'slide')}" if s.n_slides else ""
        first = f"{count_noun(s.n_images, 'image')}{slides}; {look} to be looked at."
        several = f"{stand} on several sections; each is counted once."
    return (first, several) if s.n_on_several_sections else (first,)


def _rule_block(result: RuleResult, case: Case, language: Language) -> RuleBlock:
    rules = result.rule_set
    rows = tuple(_item_row(one, case, language) for one in result.items)
    pairs = list(zip(result.items, rows, strict=True))
    return RuleBlock(
        name=name_of(rules, language),
        version=rules.version,
        source=rules.source,
        note=(rules.note_zh if language == "zh" else rules.note) or rules.note,
        too_few=_too_few(result, language),
        rows=tuple(row for one, row in pairs if one.grade is not None),
        not_assessed=tuple(row for one, row in pairs if one.grade is None),
        caveats=tuple(
            dict.fromkeys(
                text
                for one in result.items
                for text in (one.caveats_zh if language == "zh" else one.caveats)
            )
        ),
    )


def _too_few(result: RuleResult, language: Language) -> str:
    phrase, least = words(language), result.rule_set.min_glomeruli
    if not result.has_enough:
        return f"{phrase['too_few']}{phrase['colon']}{result.n_glomeruli} < {least}"
    if result.may_have_too_few:
        return f"{phrase['perhaps_too_few']}{phrase['colon']}{result.n_range[0]} < {least}"
    return ""


def _item_row(result: ItemResult, case: Case, language: Language) -> ItemRow:
    names = {label.id: name_of(label, language) for label in case.taxonomy.labels}
    phrase = words(language)
    signs = [grade_sign(one, language) for one in reversed(result.possible)]
    possible = phrase["comma"].join(signs[:-1]) + phrase["or"] + signs[-1] if signs[1:] else ""
    if result.grade is None:
        possible = possible or "".join(signs)
    share = phrase["semicolon"].join(_share(one, result.n_of, language) for one in result.counted)
    if not share and result.grade is not None:
        share = str(result.n_of)
    return ItemRow(
        result.item.id,
        name_of(result.item, language),
        "" if result.grade is None else grade_name(result.grade, language),
        share,
        possible,
        phrase["comma"].join(names[key] for key in result.labels),
        result.not_assessed_zh if language == "zh" else result.not_assessed,
    )


def _share(one: FindingCount, n_of: int, language: Language) -> str:
    phrase = words(language)
    said = phrase["comma"].join(name_of(finding, language) for finding in one.findings)
    share = f"{one.n_with} / {n_of} ({round(100 * one.n_with / n_of, 1):g} %)"
    return f"{said}{phrase['colon']}{share}" if said else share


def _label_rows(case: Case, language: Language) -> tuple[LabelRow, ...]:
    summary, original = case.summary, case.original
    rows = [
        LabelRow(
            words(language)["all_glomeruli"],
            str(summary.n_glomeruli),
            "–",
            _range(summary.n_range),
            str(original.n_glomeruli),
        )
    ]
    for one, alone in zip(summary.labels, original.labels, strict=True):
        share = "–"
        if one.interval is not None and one.share is not None:
            low, high = one.interval
            share = f"{round(100 * one.share, 1):g} % ({100 * low:.0f} – {100 * high:.0f} %)"
        rows.append(
            LabelRow(
                name_of(one.label, language),
                f"{one.n_with} / {one.n_of}",
                share,
                _range(one.n_range),
                str(alone.n_with),
            )
        )
    return tuple(rows)


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low} – {high}"


def _n_images(members: list[GlomerulusRow], language: Language) -> str:
    n, n_shared = len(members), sum(one.shared != "" for one in members)
    if language == "zh":
        return f"{n} 幅图像" + (f"，其中 {n_shared} 幅的肾小球出现在多张切片上" if n_shared else "")
    shared = f", {n_shared} of glomeruli on several sections" if n_shared else ""
    return count_noun(n, "image") + shared


def _shared(case: Case, call: GlomerulusCall, language: Language) -> str:
    others = case.other_slides_of(call)
    if not others:
        return ""
    number = case.glomerulus_numbers[call.image_id]
    counted = reading_words(case.glomerulus_of(call).called, case.taxonomy, language)
    if language == "zh":
        return f"肾小球 {number}，亦见于切片 {'、'.join(others)}；计为：{counted}"
    slides = "slide" if len(others) == 1 else "slides"
    return f"Glomerulus {number}, also on {slides} {', '.join(others)}; counted as: {counted}"


def _shown(case: Case, language: Language) -> tuple[GlomerulusRow, ...]:
    phrase = words(language)
    names = {label.id: name_of(label, language) for label in case.taxonomy.labels}
    latest_corrections = case.latest_corrections
    found = []
    for number, call in enumerate(case.calls, start=1):
        entry = latest_corrections.get(call.image_id)
        reading = case.reading_of(call)
        chances = sorted(call.probabilities.items(), key=lambda item: -item[1])
        found.append(
            GlomerulusRow(
                number,
                call,
                reading_words(reading, case.taxonomy, language),
                colour_of(reading, case.taxonomy.label_ids),
                "" if entry is None else reading_words(call.called, case.taxonomy, language),
                entry is not None and entry.reading != call.called,
                ""
                if entry is None
                else f"{entry.by}, {moment(entry.time)}{phrase['colon']}{entry.reason}",
                tuple((names[key], chance) for key, chance in chances),
                () if entry is not None else tuple(phrase[reason] for reason in call.reasons),
                _shared(case, call, language),
            )
        )
    return tuple(found)
