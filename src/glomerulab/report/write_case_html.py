"""A case as one HTML file that loads nothing: read on a screen, a phone or paper."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from glomerulab.files import written_whole
from glomerulab.report.case_pictures import crop_picture, saliency_uri, slide_map
from glomerulab.report.case_view import case_view
from glomerulab.report.reported_case import ReportedCase
from glomerulab.report.words import Language, reading_words, words

__all__ = ["change_rows", "render_case_html", "write_case_html"]


def render_case_html(case: ReportedCase, folder: Path, *, language: Language = "en") -> str:
    """Return the page of a case.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions, where the crops are.
    language : {"en", "zh"}, default "en"

    Returns
    -------
    str
        Everything in it is escaped; a content policy forbids the browser to load anything.
    """
    environment = Environment(
        loader=PackageLoader("glomerulab.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = case_view(case, language)
    maps = [slide_map(slide, view.shown, folder) for slide in case.slides]
    return environment.get_template("case.html.j2").render(
        view=view,
        words=words(language),
        language=language,
        is_synthetic=case.facts.is_synthetic,
        maps=[one for one in maps if one is not None],
        pictures={call.image_id: crop_picture(call, folder) for call in case.calls},
        saliency={call.image_id: saliency_uri(call, folder) for call in case.calls},
        changes=change_rows(case, language),
        folder=folder.resolve().name,
        example=case.taxonomy.label_ids[-1],
    )


def write_case_html(
    case: ReportedCase, folder: Path, path: Path, *, language: Language = "en"
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions.
    path : Path
        Replaced if it exists.
    language : {"en", "zh"}, default "en"
    """
    text = render_case_html(case, folder, language=language)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def change_rows(case: ReportedCase, language: Language) -> list[tuple[str, ...]]:
    """Return what people changed, a row of text per entry, oldest first."""
    calls = {call.image_id: call for call in case.calls}
    return [
        (
            entry.image_id,
            reading_words(calls[entry.image_id].called, case.taxonomy, language),
            reading_words(entry.reading, case.taxonomy, language),
            entry.by,
            entry.time[:16].replace("T", " ") + " UTC",
            entry.reason,
        )
        for entry in case.overrides
    ]
