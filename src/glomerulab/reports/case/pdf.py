"""A case on A4 paper, by Typst: the same view as the HTML page, in English or Chinese."""

import json
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import typst
from PIL import Image, ImageDraw, ImageFont

from glomerulab.cases.case import Case
from glomerulab.errors import ConfigError, ImageFileError
from glomerulab.images import read_image
from glomerulab.reports.case.html import change_rows
from glomerulab.reports.case.pictures import crop_picture, slide_map
from glomerulab.reports.case.view import GlomerulusRow, case_view
from glomerulab.reports.case.words import Language, words
from glomerulab.runtime.files import atomic_write

__all__ = ["render_case_pdf", "write_case_pdf"]

LATIN = ("Noto Sans", "DejaVu Sans", "Liberation Sans", "Libertinus Serif")
CHINESE = (
    "Noto Sans CJK SC",
    "Noto Serif CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "SimSun",
    "Microsoft YaHei",
    "PingFang SC",
)
JPEG_QUALITY = 85
CROP_PX = 256
MAP_PX = 1600


def write_case_pdf(case: Case, folder: Path, path: Path, *, language: Language = "en") -> None:
    """Write a case as PDF, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions, where the crops are.
    path : Path
        Replaced if it exists.
    language : {"en", "zh"}, default "en"

    Raises
    ------
    ConfigError
        If the machine has no font with Chinese.
    """
    content = render_case_pdf(case, folder, language=language)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def render_case_pdf(case: Case, folder: Path, *, language: Language = "en") -> bytes:
    """Return a case as PDF.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions, where the crops are.
    language : {"en", "zh"}, default "en"

    Returns
    -------
    bytes

    Raises
    ------
    ConfigError
        If the machine has no font with Chinese.
    """
    fonts = _fonts(language)
    template = resources.files("glomerulab.reports.case").joinpath("templates/case.typ")
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        facts = _facts(case, folder, room, language) | {"fonts": fonts}
        (room / "case.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        (room / "case.typ").write_text(template.read_text("utf-8"), encoding="utf-8")
        typst.compile(room / "case.typ", output=room / "case.pdf", root=room, format="pdf")
        return (room / "case.pdf").read_bytes()


def _fonts(language: Language) -> list[str]:
    """Return the fonts to try, in order."""
    known = set(typst.Fonts().families())
    latin = [name for name in LATIN if name in known]
    chinese = [name for name in CHINESE if name in known]
    if language == "zh" and not chinese:
        raise ConfigError(
            "no font with Chinese on this machine; install one (Debian: fonts-noto-cjk), or make "
            "the report in English"
        )
    return [*chinese, *latin] if language == "zh" else [*latin, *chinese]


def _facts(case: Case, folder: Path, room: Path, language: Language) -> dict[str, Any]:
    view = case_view(case, language)
    return {
        "language": language,
        "words": words(language),
        "is_synthetic": case.facts.is_synthetic,
        "title": view.title,
        "headline": view.headline,
        "summary": view.summary,
        "warnings": [
            {"title": one.title, "text": one.text, "severe": one.is_severe} for one in view.warnings
        ],
        "labels": [
            {
                "name": one.name,
                "number": one.number,
                "share": one.share,
                "range": one.range,
                "by_model": one.by_model,
            }
            for one in view.labels
        ],
        "rules": [
            {
                "name": one.name,
                "version": one.version,
                "source": one.source,
                "note": one.note,
                "too_few": one.too_few,
                "caveats": one.caveats,
                "rows": [_row(row) for row in one.rows],
                "not_assessed": [_row(row) for row in one.not_assessed],
            }
            for one in view.rules
        ],
        "maps": _maps(case, view.shown, folder, room),
        "groups": [
            {
                "name": group.name,
                "n_images": group.n_images,
                "colour": group.members[0].colour,
                "members": [_member(one, folder, room, words(language)) for one in group.members],
            }
            for group in view.groups
        ],
        "has_saliency": any(call.saliency_path is not None for call in case.calls),
        "changes": change_rows(case, language),
        "model": view.model,
        "slides": view.slides,
    }


def _row(row: Any) -> dict[str, str]:  # noqa: ANN401
    return {
        name: getattr(row, name)
        for name in ("name", "grade", "share", "possible", "rests_on", "reason")
    }


def _member(one: GlomerulusRow, folder: Path, room: Path, phrase: dict[str, str]) -> dict[str, Any]:
    """Put a crop with its outline into the room, and say what stands beside it."""
    picture = crop_picture(one.call, folder)
    file = ""
    if picture.uri is not None and one.call.image_path is not None:
        file = f"crop-{one.number}.jpg"
        image = Image.fromarray(read_image(folder / one.call.image_path))
        if picture.points:
            points = _parsed(picture.points)
            width = max(round(picture.stroke), 1)
            ImageDraw.Draw(image).line([*points, points[0]], fill=one.colour, width=width)
        image.thumbnail((CROP_PX, CROP_PX))
        image.save(room / file, quality=JPEG_QUALITY)
    return {
        "looked": _looked(one, folder, room),
        "number": one.number,
        "name": one.call.region_id or one.call.image_id,
        "file": file,
        "missing": phrase["no_picture"]
        + (phrase["colon"] + phrase[picture.reason] if picture.reason else ""),
        "original": one.original,
        "is_changed": one.is_changed,
        "said": one.said,
        "shared": one.shared,
        "reasons": phrase["semicolon"].join(one.reasons),
        "chances": [(label, f"{chance:.0%}") for label, chance in one.chances],
    }


def _looked(one: GlomerulusRow, folder: Path, room: Path) -> str:
    """Put the picture of where the network looked into the room; empty where there is none."""
    if one.call.saliency_path is None:
        return ""
    try:
        image = Image.fromarray(read_image(folder / one.call.saliency_path))
    except ImageFileError:  # the crop stands above it; a report does not fail for this
        return ""
    file = f"looked-{one.number}.jpg"
    image.thumbnail((CROP_PX, CROP_PX))
    image.save(room / file, quality=JPEG_QUALITY)
    return file


def _maps(
    case: Case, shown: tuple[GlomerulusRow, ...], folder: Path, room: Path
) -> list[dict[str, str]]:
    """Draw the glomeruli onto the slides' maps."""
    found = []
    for place, slide in enumerate(case.slides):
        drawn = slide_map(slide, shown, folder)
        if drawn is None or slide.map_path is None:
            continue
        image = Image.fromarray(read_image(folder / slide.map_path))
        image.thumbnail((MAP_PX, MAP_PX))
        scale = image.width / slide.width
        pen = ImageDraw.Draw(image)
        font = ImageFont.load_default(size=max(drawn.text * scale, 9))
        for mark in drawn.marks:
            points = [(x * scale, y * scale) for x, y in _parsed(mark.points)]
            pen.line([*points, points[0]], fill="white", width=6)
            pen.line([*points, points[0]], fill=mark.colour, width=3)
            at = (mark.x * scale + 3, mark.y * scale - 6)
            pen.text(
                at, str(mark.number), fill="#1f2933", font=font, stroke_width=3, stroke_fill="white"
            )
        image.save(room / f"map-{place}.jpg", quality=JPEG_QUALITY)
        found.append({"slide_id": slide.slide_id, "file": f"map-{place}.jpg"})
    return found


def _parsed(points: str) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in points.split())
    return [(float(x), float(y)) for x, y in pairs]
