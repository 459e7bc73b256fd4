"""The page of a run's report: one HTML file that loads nothing and prints well."""

from dataclasses import dataclass
from pathlib import Path

from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.i18n.catalogue import Language
from glomerulab.reports.html import page_environment
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


def render_html(page: Page) -> str:
    """Return the page as one HTML document.

    All text is escaped; a content security policy forbids the browser to load anything.
    """
    environment = page_environment("glomerulab.reports.run")
    return environment.get_template("report.html.j2").render(page=page)


def write_html(page: Page, path: Path) -> None:
    """Write the page atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(render_html(page), encoding="utf-8")
