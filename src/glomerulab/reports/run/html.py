"""The page: facts in, one HTML file out that loads nothing and prints well."""

from dataclasses import dataclass, field
from pathlib import Path

from glomerulab.evaluation.figures.language import Language
from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.reports.html import page_environment
from glomerulab.runtime.files import atomic_write

__all__ = ["Figure", "GalleryItem", "Page", "Table", "render_html", "write_html"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, what it is called, and how to read it."""

    title: str
    caption: str
    alt: str
    uri: str
    name: str = ""
    """Of its files."""
    language: Language = "en"
    """Of title and caption."""


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One image with what was said of it; without a picture, why."""

    image_id: str
    true_label: str
    called: str
    confidence: str
    uri: str | None
    reason: str = ""
    explained: str = ""
    """The label whose map stands beside the image; empty where there is no map."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a heading; the first column names the row.

    Of a cell with several lines, those after the first are shown small.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    is_settings: bool = False
    """Whether values are free text that may wrap, not numbers that must not."""
    is_collapsed: bool = False
    """Whether it is opened by a click on screen; in print it stands open."""


@dataclass(frozen=True)
class Page:
    """Everything a report says."""

    title: str
    is_synthetic: bool
    headline: str
    summary: tuple[str, ...]
    """Further sentences under the headline."""
    warnings: tuple[EvaluationWarning, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    gallery: tuple[GalleryItem, ...]
    gallery_note: str
    appendix: tuple[Table, ...]
    config_text: str
    footer: str
    language: str = field(default="en")


def render_html(page: Page) -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    page : Page

    Returns
    -------
    str
        Everything in it is escaped; a content policy in it forbids the browser to load anything.
    """
    environment = page_environment("glomerulab.reports.run")
    return environment.get_template("report.html.j2").render(page=page)


def write_html(page: Page, path: Path) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    page : Page
    path : Path
        Replaced if it exists.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(render_html(page), encoding="utf-8")
