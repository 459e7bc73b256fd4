"""A case as PDF on A4, typeset by Typst from the same texts as the HTML page."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import typst
from PIL import Image, ImageDraw, ImageFont

from glomerulab.cases.case import Case
from glomerulab.errors import ConfigError, ImageFileError
from glomerulab.geometry import Point
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.images import read_image
from glomerulab.reports.case.pictures import (
    CROP_PX,
    MAP_PX,
    SlideMap,
    crop_picture,
    shows_maps,
    slide_map,
)
from glomerulab.reports.case.text import translations_in
from glomerulab.reports.case.view import CaseView, ImageRow, case_view
from glomerulab.runtime.files import atomic_write

__all__ = ["render_case_pdf"]

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
WIDTH_MM = 174.0
"""Of the text."""
MAP_MM = 108.0
"""The highest map, so that two rows fit on a page."""
LEAST_MAP_MM = 80.0
"""Maps stand side by side while they are at least so high, so that their numbers stay readable."""
GUTTER_MM = 4.0
DASH_PX = 9.0
OUTLINE_SHARE = 200
"""Of a crop's longer side to its outline, thin enough to leave Bowman's capsule visible."""


def write_case_pdf(case: Case, folder: Path, path: Path, *, language: Language = "en") -> None:
    """Write a case as PDF."""
    content = render_case_pdf(case, folder, language=language)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def render_case_pdf(case: Case, folder: Path, *, language: Language = "en") -> bytes:
    """Return a case as PDF.

    Parameters
    ----------
    folder : Path
        Of the predictions, where the crops are.

    Raises
    ------
    ConfigError
        If the machine has no font with Chinese.
    """
    template = (
        resources.files("glomerulab.reports.case").joinpath("templates/case.typ").read_text("utf-8")
    )
    view = case_view(case, language)
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        facts = {
            "language": language,
            "fonts": _fonts(language),
            "texts": translations_in(template, "t", language),
            "is_synthetic": case.facts.is_synthetic,
            "has_saliency": shows_maps(case)
            and any(call.saliency_path is not None for call in case.calls),
            "maps": _maps(case, view, folder, room),
            "legend": view.legend,
            **_texts(view),
            "groups": [
                {
                    "name": group.name,
                    "n_images": group.n_images,
                    "colour": group.colour,
                    "is_unsettled": group.is_unsettled,
                    "members": [
                        _member(one, folder, room, language, with_map=shows_maps(case))
                        for one in group.members
                    ],
                }
                for group in view.groups
            ],
        }
        (room / "case.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        (room / "case.typ").write_text(template, encoding="utf-8")
        typst.compile(room / "case.typ", output=room / "case.pdf", root=room, format="pdf")
        return (room / "case.pdf").read_bytes()


def _fonts(language: Language) -> list[str]:
    """Return the fonts to try, in order."""
    known = set(typst.Fonts().families())
    latin = [name for name in LATIN if name in known]
    chinese = [name for name in CHINESE if name in known]
    if language == "en":
        return [*latin, *chinese]
    if not chinese:
        raise ConfigError(
            "this machine has no font with Chinese; install one (Debian: fonts-noto-cjk), or make "
            "the report in English"
        )
    return [*chinese, *latin]


def _texts(view: CaseView) -> dict[str, Any]:
    """Return the texts of a view that need no pictures."""
    return {
        "title": view.title,
        "dates": view.dates,
        "headline": view.headline,
        "summary": view.summary,
        "warnings": [{**asdict(one), "text": one.text.replace("`", "")} for one in view.warnings],
        "labels": [asdict(one) for one in view.labels],
        "tissue": [asdict(one) for one in view.tissue],
        "rules": [asdict(one) for one in view.rules],
        "changes": view.corrections,
        "model": view.model,
        "slides": view.slides,
    }


def _member(
    image: ImageRow, folder: Path, room: Path, language: Language, *, with_map: bool
) -> dict[str, Any]:
    """Save a crop with its outline for the typesetter, and return it with its texts."""
    picture = crop_picture(image.call, folder, lambda path, _size_px: path.name)
    file = ""
    if picture.uri is not None and image.call.image_path is not None:
        file = f"crop-{image.number}.jpg"
        crop = Image.fromarray(read_image(folder / image.call.image_path))
        if picture.outline:
            line = [*picture.outline, picture.outline[0]]
            width = max(round(max(crop.size) / OUTLINE_SHARE), 1)
            ImageDraw.Draw(crop).line(line, fill=image.colour, width=width)
        _save(crop, room / file, CROP_PX)
    missing = translate("no picture", language)
    if picture.problem:
        missing += translate("sign|: ", language) + translate(picture.problem, language)
    return {
        "number": image.number,
        "label": image.group,
        "colour": image.colour,
        "name": image.call.region_id or image.call.image_id,
        "file": file,
        "missing": missing,
        "saliency": _saliency(image, folder, room) if with_map else "",
        "model_labels": image.model_labels,
        "is_changed": image.is_changed,
        "correction": image.correction,
        "other_sections": image.other_sections,
        "review_reasons": translate("sign|; ", language).join(image.review_reasons),
        "probabilities": [(label, f"{value:.0%}") for label, value in image.probabilities],
    }


def _saliency(image: ImageRow, folder: Path, room: Path) -> str:
    """Save the saliency picture for the typesetter; empty if there is none."""
    if image.call.saliency_path is None:
        return ""
    try:
        picture = Image.fromarray(read_image(folder / image.call.saliency_path))
    except ImageFileError:  # optional, below the crop
        return ""
    file = f"saliency-{image.number}.jpg"
    _save(picture, room / file, CROP_PX)
    return file


def _maps(case: Case, view: CaseView, folder: Path, room: Path) -> list[dict[str, Any]]:
    """Save the maps of the slides for the typesetter, and return them in rows."""
    found = []
    for place, slide in enumerate(case.slides):
        slide_with_marks = slide_map(slide, view.images, folder)
        if slide_with_marks is None or slide.map_path is None:
            continue
        picture = Image.fromarray(read_image(folder / slide.map_path))
        picture.thumbnail((MAP_PX, MAP_PX))
        _draw_marks(picture, slide_with_marks)
        picture.save(room / f"map-{place}.jpg", quality=JPEG_QUALITY)
        aspect = picture.width / picture.height
        found.append({"slide_id": slide.slide_id, "file": f"map-{place}.jpg", "aspect": aspect})
    return map_rows(found)


def map_rows(maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lay maps out in rows of one height; each has ``aspect``, its width by its height.

    Returns
    -------
    list of dict
        ``height_mm`` and ``maps``, which have ``width_mm`` besides.
    """
    rows: list[list[Mapping[str, Any]]] = []
    for one in maps:
        least = min(_row_height([one]), LEAST_MAP_MM)
        if rows and _row_height([*rows[-1], one]) >= least:
            rows[-1].append(one)
        else:
            rows.append([one])
    return [
        {
            "height_mm": (height := _row_height(row)),
            "maps": [{**one, "width_mm": one["aspect"] * height} for one in row],
        }
        for row in rows
    ]


def _row_height(row: Sequence[Mapping[str, Any]]) -> float:
    room = WIDTH_MM - GUTTER_MM * (len(row) - 1)
    return min(room / sum(float(one["aspect"]) for one in row), MAP_MM)


def _draw_marks(picture: Image.Image, slide: SlideMap) -> None:
    scale = picture.width / slide.width
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(slide.text * scale, 9))
    for mark in slide.marks:
        points = [(x * scale, y * scale) for x, y in mark.outline]
        ring = [*points, points[0]]
        pen.line(ring, fill="white", width=6)
        for dash in _dashes(ring, DASH_PX) if mark.is_referred else [ring]:
            pen.line(dash, fill=mark.colour, width=3)
        at = (mark.x * scale + 3, mark.y * scale - 6)
        pen.text(
            at, str(mark.number), fill="#1f2933", font=font, stroke_width=3, stroke_fill="white"
        )


def _dashes(ring: list[Point], length: float) -> list[list[Point]]:
    """Return every second piece of a line, each of a length, corners included."""
    dashes: list[list[Point]] = [[ring[0]]]
    left, is_drawn = length, True
    for (x, y), (to_x, to_y) in pairwise(ring):
        side = done = math.hypot(to_x - x, to_y - y)
        while done > left:
            done -= left
            share = 1 - done / side
            at = (x + (to_x - x) * share, y + (to_y - y) * share)
            if is_drawn:
                dashes[-1].append(at)
            else:
                dashes.append([at])
            left, is_drawn = length, not is_drawn
        left -= done
        if is_drawn:
            dashes[-1].append((to_x, to_y))
    return [dash for dash in dashes if len(dash) > 1]


def _save(picture: Image.Image, path: Path, size_px: int) -> None:
    picture.thumbnail((size_px, size_px))
    picture.save(path, quality=JPEG_QUALITY)
