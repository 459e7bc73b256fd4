"""What outlines of a case's slides say: areas, shares of the cortex, densities and counts.

Every number is a range: where the segmenter is certain, where a structure is likely, and wherever
it is possible. Slides are pooled by their areas.
"""

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from glomerulab.errors import GlomerulabError
from glomerulab.i18n.catalogue import LANGUAGES, Language, translate, translate_count
from glomerulab.runtime.files import read_utf8
from glomerulab.structures.areas import quotient
from glomerulab.structures.classes import structure
from glomerulab.structures.morphometry import MIN_ARTERY_UM
from glomerulab.structures.summary import (
    EITHER,
    SUMMARY_FILE,
    HardlyFound,
    Range,
    SlideSummary,
    read_summary,
)

__all__ = [
    "CaseStructures",
    "MeasureKey",
    "Measured",
    "read_case_structures",
]

TABLE_FILE, OBJECTS_FILE = "slides.csv", "objects.csv"
CERTAIN = 0.5
"""Share of certain pixels from which an object is certain."""

MeasureKey = Literal[
    "cortex_mm2",
    "atrophy",
    "fibrosis",
    "atrophy_or_fibrosis",
    "together",
    "atrophy_of_tubules",
    "glomeruli_per_mm2",
    "glomeruli",
    "sclerosed_glomeruli",
    "glomeruli_at_edge",
    "arteries",
]
MEASURE_KEYS: tuple[MeasureKey, ...] = get_args(MeasureKey)

Unit = Literal["mm2", "share", "per_mm2", "count"]
Text = Mapping[Language, str]


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    unit: Unit
    needs: tuple[str, ...]
    """Structures that the segmenter must know."""


_KINDS: Mapping[MeasureKey, _Kind] = {
    "cortex_mm2": _Kind(translate("Area of the cortex", "en"), "mm2", ("cortex",)),
    "atrophy": _Kind(
        translate("Tubular atrophy, share of the cortex", "en"),
        "share",
        ("cortex", "atrophic_tubule"),
    ),
    "fibrosis": _Kind(
        translate("Interstitial fibrosis, share of the cortex", "en"),
        "share",
        ("cortex", "fibrosis"),
    ),
    "atrophy_or_fibrosis": _Kind(
        translate("The greater share of tubular atrophy and interstitial fibrosis", "en"),
        "share",
        ("cortex", "atrophic_tubule", "fibrosis"),
    ),
    "together": _Kind(
        translate("Atrophic tubules and fibrosis together, share of the cortex", "en"),
        "share",
        ("cortex", "atrophic_tubule", "fibrosis"),
    ),
    "atrophy_of_tubules": _Kind(
        translate("Atrophic share of the cortex's tubules, by area", "en"),
        "share",
        ("cortex", "atrophic_tubule", "tubule"),
    ),
    "glomeruli_per_mm2": _Kind(
        translate("Glomeruli per mm² of cortex", "en"), "per_mm2", ("cortex", "glomerulus")
    ),
    "glomeruli": _Kind(translate("Outlined glomeruli", "en"), "count", ("glomerulus",)),
    "sclerosed_glomeruli": _Kind(
        translate("Outlined glomeruli, globally sclerosed", "en"),
        "count",
        ("sclerosed_glomerulus",),
    ),
    "glomeruli_at_edge": _Kind(
        translate("Outlined glomeruli, cut by an edge", "en"), "count", ("glomerulus",)
    ),
    "arteries": _Kind(translate("Arteries of at least 45 µm", "en"), "count", ("artery",)),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of a case, or why there is none."""

    key: MeasureKey
    value: Range | None
    basis: Text
    """The slides that it rests on, or why it is not assessed."""

    @property
    def unit(self) -> Unit:
        """``share`` is from 0 to 1."""
        return _KINDS[self.key].unit

    def name(self, language: Language) -> str:
        """Return what is measured."""
        return translate(_KINDS[self.key].name, language)

    def text(self, language: Language) -> str:
        """Return the value with its range and unit; empty if it is not assessed."""
        if self.value is None:
            return ""
        low, likely, high = (_number(one, self.unit) for one in self.value)
        unit = {"mm2": " mm²", "share": " %", "per_mm2": " / mm²", "count": ""}[self.unit]
        if low == likely == high:
            return f"{likely}{unit}"
        return translate(
            "measured|{likely} ({low} – {high})",
            language,
            likely=f"{likely}{unit}",
            low=low,
            high=f"{high}{unit}",
        )


def _number(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if unit == "count" else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class CaseStructures:
    """What was measured on the outlined slides of a case."""

    measures: tuple[Measured, ...]
    """One per key, in the order of a report."""
    slides: tuple[str, ...]
    """Slides with outlines."""
    without: tuple[str, ...]
    """Slides of the case without outlines."""
    notes: tuple[str, ...] = ()
    """What makes the outlines doubtful, in English."""

    def __getitem__(self, key: MeasureKey) -> Measured:
        """Return a measure by its key."""
        return self.measures[MEASURE_KEYS.index(key)]


def read_case_structures(folder: Path, slide_ids: Collection[str]) -> CaseStructures:
    """Measure the slides of a case that ``segment`` has outlined.

    Parameters
    ----------
    folder : Path
        What ``glomerulab segment`` wrote, its folder of one slide, or ``structures/`` of
        predictions with a detector.
    slide_ids : collection of str
        Slides of the case.

    Raises
    ------
    GlomerulabError
        If the folder holds no outlines, or a file in it is damaged.
    """
    folders = _slide_folders(folder)
    found = {name: folders[name] for name in sorted(slide_ids) if name in folders}
    summaries = {name: _summary_of(name, place / SUMMARY_FILE) for name, place in found.items()}
    arteries = [_arteries(place / OBJECTS_FILE) for place in found.values()]
    return measure_case(
        tuple(summaries.values()),
        arteries=arteries,
        without=tuple(sorted(set(slide_ids) - found.keys())),
    )


def _slide_folders(folder: Path) -> dict[str, Path]:
    # The folder of a slide, or that of a detector, which has one of each slide and no table.
    own = [folder / SUMMARY_FILE, *sorted(folder.glob(f"*/{SUMMARY_FILE}"))]
    if found := [path for path in own if path.is_file()]:
        return {read_summary(path).slide_id: path.parent for path in found}
    way_out = "give the folder that `glomerulab segment` wrote"
    text = read_utf8(
        folder / TABLE_FILE, "table of outlined slides", error=GlomerulabError, way_out=way_out
    )
    rows = list(csv.DictReader(text.splitlines()))
    if not all(row.get("slide_id") and row.get("folder") for row in rows):
        raise GlomerulabError(
            f"the table lacks slide_id or folder; {way_out}", where=str(folder / TABLE_FILE)
        )
    for row, n in Counter(row["slide_id"] for row in rows).items():
        if n > 1:
            raise GlomerulabError(
                f"the table has {n} rows of the slide {row!r}; {way_out}",
                where=str(folder / TABLE_FILE),
            )
    return {row["slide_id"]: folder / row["folder"] for row in rows}


def _summary_of(slide_id: str, path: Path) -> SlideSummary:
    found = read_summary(path)
    if found.slide_id != slide_id:
        raise GlomerulabError(
            f"the summary of structures is of the slide {found.slide_id!r}, not of {slide_id!r}; "
            "run `glomerulab segment` again",
            where=str(path),
        )
    return found


def _arteries(path: Path) -> Range | None:
    """Count the arteries of a slide; None without the table of its objects."""
    if not path.is_file():
        return None
    text = read_utf8(path, "table of objects", error=GlomerulabError)
    certain = likely = 0
    try:
        for row in csv.DictReader(text.removeprefix("\ufeff").splitlines()):
            if row["structure"] == "artery" and _is_artery(row["equivalent_diameter_um"]):
                likely += 1
                certain += float(row["certainty"]) >= CERTAIN
    except (KeyError, TypeError, ValueError) as error:
        raise GlomerulabError(
            f"the table of objects is damaged ({error}); run `glomerulab segment` again",
            where=str(path),
        ) from error
    return Range(certain, likely, likely)


def _is_artery(diameter: str) -> bool:
    return float(diameter) >= MIN_ARTERY_UM


def measure_case(
    summaries: Sequence[SlideSummary],
    *,
    arteries: Sequence[Range | None],
    without: tuple[str, ...] = (),
) -> CaseStructures:
    """Pool the slides of a case.

    Parameters
    ----------
    summaries : sequence of SlideSummary
    arteries : sequence of Range or None
        Of each summary's slide; None where its objects are not known.
    without : tuple of str
        Slides of the case without a summary.
    """
    slides = tuple(one.slide_id for one in summaries)
    measures = []
    for key in MEASURE_KEYS:
        reason = _missing(key, summaries, arteries)
        value = None if reason else _value(key, summaries, arteries)
        if value is None and not reason:
            reason = {
                one: translate("no cortex with such structures was outlined", one)
                for one in LANGUAGES
            }
        basis = reason or _basis(_KINDS[key].unit, slides, without)
        measures.append(Measured(key, value, basis))
    notes = dict.fromkeys(note for one in summaries for note in one.notes)
    return CaseStructures(tuple(measures), slides, without, tuple(notes))


def _missing(
    key: MeasureKey, summaries: Sequence[SlideSummary], arteries: Sequence[Range | None]
) -> Text | None:
    """Return why a measure cannot be given."""
    if not summaries:
        return {one: translate("no slide of the case was outlined", one) for one in LANGUAGES}
    hardly = {
        name: one.not_assessed[name]
        for one in summaries
        for name in _KINDS[key].needs
        if name in one.not_assessed
    }
    if hardly:
        return {language: _hardly_found(hardly, language) for language in LANGUAGES}
    unknown = [
        name
        for name in _KINDS[key].needs
        if any(name not in summary.structures for summary in summaries)
    ]
    if unknown:
        return {
            language: translate(
                "the segmenter does not know {structures}",
                language,
                structures=translate("sign|, ", language).join(
                    _within_sentence(name, language) for name in unknown
                ),
            )
            for language in LANGUAGES
        }
    if key == "arteries" and None in arteries:
        return {
            one: translate("the table objects.csv of a slide is missing", one) for one in LANGUAGES
        }
    return None


def _hardly_found(found: Mapping[str, HardlyFound], language: Language) -> str:
    first = next(iter(found.values()))
    structures = [
        translate(
            "{structure} (Dice {n})",
            language,
            structure=_within_sentence(name, language),
            n=f"{one.dice:.2f}",
        )
        for name, one in found.items()
    ]
    return translate(
        "the segmenter {segmenter} hardly finds {structures}; a Dice of at least {least} is needed",
        language,
        segmenter=first.segmenter,
        structures=translate("sign|, ", language).join(structures),
        least=f"{first.least_dice:.2f}",
    )


def _within_sentence(structure_id: str, language: Language) -> str:
    name = structure(structure_id).name_in(language)
    return name.lower() if language == "en" else name


def _basis(unit: Unit, slides: Sequence[str], without: Sequence[str]) -> Text:
    texts = {}
    for language in LANGUAGES:
        text = translate_count(len(slides), "{n} outlined slide", "{n} outlined slides", language)
        if without:
            text += translate("basis|; {n} without outlines", language, n=len(without))
        if unit == "count" and len(slides) > 1:
            text += translate("basis|; each section counts again", language)
        texts[language] = text
    return texts


_SHARES: Mapping[MeasureKey, tuple[str, ...]] = {
    "atrophy": ("atrophic_tubule",),
    "fibrosis": ("fibrosis",),
    "atrophy_or_fibrosis": ("atrophic_tubule", "fibrosis"),
    "together": (EITHER,),
}
_COUNTS: Mapping[MeasureKey, str] = {
    "glomeruli": "glomerulus",
    "sclerosed_glomeruli": "sclerosed_glomerulus",
}


def _value(
    key: MeasureKey, summaries: Sequence[SlideSummary], arteries: Sequence[Range | None]
) -> Range | None:
    """Return a measure; None if it is of the cortex and there is none."""
    if "cortex" in _KINDS[key].needs:
        return _value_of_cortex(key, summaries)
    if key in _COUNTS:
        return _sum([one.structures[_COUNTS[key]].n for one in summaries])
    if key == "arteries":
        return _sum(arteries)
    n = sum(one.structures["glomerulus"].n_at_edge or 0 for one in summaries)
    return Range(n, n, n)


def _value_of_cortex(key: MeasureKey, summaries: Sequence[SlideSummary]) -> Range | None:
    cortex = _sum([one.structures["cortex"].area_mm2 for one in summaries])
    if not cortex.likely or key == "cortex_mm2":
        return cortex if cortex.likely else None
    if key in _SHARES:
        shares = [_pooled_share(name, summaries) for name in _SHARES[key]]
        return Range(*(max(ends) for ends in zip(*shares, strict=True)))
    if key == "glomeruli_per_mm2":
        inside = _sum([one.structures["glomerulus"].n_in_cortex for one in summaries])
        return quotient(inside, cortex)
    atrophic = _sum([one.structures["atrophic_tubule"].cortex_mm2 for one in summaries])
    tubules = _sum([one.structures["tubule"].cortex_mm2 for one in summaries]).likely
    return Range(*(min(one / tubules, 1.0) for one in atrophic)) if tubules else None


def _sum(ranges: Sequence[Range | None]) -> Range:
    known = [one for one in ranges if one is not None]
    return Range(*(sum(ends) for ends in zip(*known, strict=True))) if known else Range(0, 0, 0)


def _pooled_share(name: str, summaries: Sequence[SlideSummary]) -> Range:
    """Return a share of the cortex of all slides; each weighs by its likely cortex."""
    pairs = [
        (one.structures["cortex"].area_mm2.likely, share)
        for one in summaries
        if (share := one.structures[name].share_of_cortex) is not None
    ]
    weight = sum(area for area, _ in pairs)
    ends = zip(*([area * end for end in share] for area, share in pairs), strict=True)
    return Range(*(min(sum(end) / weight, 1.0) for end in ends))
