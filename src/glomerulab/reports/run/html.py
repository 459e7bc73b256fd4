"""The page of a run's report: one HTML file that loads nothing and prints well."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.i18n.catalogue import Language
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.html import page_environment, with_code
from glomerulab.runtime.files import atomic_write


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its caption."""

    title: str
    caption: str
    alt: str
    uri: str
    name: str = ""
    """Name of its files, without suffix."""
    language: Language = "en"
    """Language of title and caption."""


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """A wrongly called image."""

    image_id: str
    true_label: str
    called: str
    confidence: str
    uri: str | None
    reason: str = ""
    """Why there is no picture."""
    explained: str = ""
    """The label of the saliency map beside the image; empty without a map."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a heading; the first column names the row.

    The second and further lines of a cell are small.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    is_settings: bool = False
    """Whether values are free text that may wrap, not numbers that must not."""
    is_english: bool = False
    """Whether the rows stay in English: settings, and checklists for a paper."""
    is_collapsed: bool = False
    """Whether the table is collapsed on screen; it is always open in print."""


@dataclass(frozen=True)
class Page:
    """Contents of a report."""

    title: str
    is_synthetic: bool
    headline: str
    summary: tuple[str, ...]
    """Further sentences under the headline."""
    warnings: tuple[EvaluationWarning, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""
    appendix: tuple[Table, ...] = ()
    config_text: str = ""


def render_html(
    page: Page, language: Language = "en", names: Mapping[str, str] | None = None
) -> str:
    """Return the page as one HTML document.

    All text is escaped; a content security policy forbids the browser to load anything.

    Parameters
    ----------
    language : {"en", "zh"}, default "en"
    names : mapping of str to str, optional
        Labels by their English name.
    """
    return (
        page_environment("glomerulab.reports.run")
        .get_template("report.html.j2")
        .render(
            page=page,
            language=language,
            _=lambda text: translate_filled(
                text, language, "evaluation", names=lambda: names or {}
            ),
            code=with_code,
        )
    )


def write_html(
    page: Page,
    path: Path,
    language: Language = "en",
    names: Mapping[str, str] | None = None,
) -> None:
    """Write the page atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(render_html(page, language, names), encoding="utf-8")
