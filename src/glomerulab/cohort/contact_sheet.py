"""Contact sheet: the images of a cohort on one page, sorted by class and stain."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import GlomerulabError, ManifestError
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = ["contact_sheet", "write_contact_sheet"]

GAP_PX = 6
TITLE_PX = 26
NAME_PX = 14
NOTE = "Research use only"


def write_contact_sheet(
    manifest: Manifest,
    path: Path,
    *,
    n_per_group: int = 8,
    cell_px: int = 128,
    n_workers: int = 1,
    track: Track = silent,
) -> list[GlomerulabError]:
    """Write the contact sheet of a cohort as PNG or JPEG.

    Parameters
    ----------
    path : Path
        Ends in ``.png`` or ``.jpg``.
    n_per_group : int, default 8
        Images of each class and stain: the first by image_id.
    cell_px : int, default 128
        Side of the square that an image is fitted into.
    n_workers : int, default 1
    track : Track, default silent

    Returns
    -------
    list of GlomerulabError
        Errors of unreadable images, whose squares are crossed out.

    Raises
    ------
    ManifestError
        If the manifest has no rows.
    """
    groups = _groups(manifest, n_per_group)
    if not groups:
        raise ManifestError("the manifest has no rows", where=manifest.location)
    chosen = sorted(row for rows in groups.values() for row in rows)
    paths = manifest.image_paths()
    outcomes = map_outcomes(_read_one, [(row, paths[row]) for row in chosen], n_workers=n_workers)
    images: dict[int, RgbImage | None] = {}
    errors = []
    for outcome in track(outcomes, "Reading images", len(chosen)):
        images[outcome.item[0]] = outcome.value
        if outcome.error is not None:
            errors.append(outcome.error)
    names = manifest.table["image_id"]
    cells = {
        title: [(str(names.iloc[row]), images[row]) for row in rows]
        for title, rows in groups.items()
    }
    write_image(contact_sheet(cells, cell_px=cell_px, n_columns=n_per_group), path)
    return errors


def contact_sheet(
    groups: dict[str, list[tuple[str, RgbImage | None]]], *, cell_px: int = 128, n_columns: int = 8
) -> RgbImage:
    """Arrange named images in titled groups.

    Parameters
    ----------
    groups : dict
        Title to (name, image of shape (H, W, 3)); None is drawn as a crossed square.
    cell_px : int, default 128
    n_columns : int, default 8

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ValueError
        If `cell_px` is below 16 or `n_columns` below 1.
    """
    if cell_px < 16 or n_columns < 1:
        raise ValueError(
            f"cell_px must be at least 16 and n_columns at least 1, got {cell_px} and {n_columns}"
        )
    step = cell_px + GAP_PX
    n_lines = [math.ceil(len(cells) / n_columns) for cells in groups.values()]
    height = sum(TITLE_PX + lines * (step + NAME_PX) for lines in n_lines) + TITLE_PX
    sheet = Image.new("RGB", (GAP_PX + n_columns * step, height), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (title, cells), lines in zip(groups.items(), n_lines, strict=True):
        draw.text((GAP_PX, top + 7), title, fill="black", font=_font(14))
        top += TITLE_PX
        for index, (name, image) in enumerate(cells):
            line, column = divmod(index, n_columns)
            corner = (GAP_PX + column * step, top + line * (step + NAME_PX))
            _draw_cell(sheet, draw, corner, cell_px, name=name, image=image)
        top += lines * (step + NAME_PX)
    draw.text((GAP_PX, top + 7), NOTE, fill="grey", font=_font(12))
    return np.array(sheet)


def _groups(manifest: Manifest, n_per_group: int) -> dict[str, list[int]]:
    """Return row numbers by title: labels and stain."""
    table = manifest.table
    present = manifest.labels() == 1
    label_ids = np.array(manifest.taxonomy.label_ids)
    titles = [
        f"{' + '.join(label_ids[flags]) or 'no label'}, {_stain(table['stain'].iloc[row])}"
        for row, flags in enumerate(present)
    ]
    order = np.argsort(table["image_id"].astype(str).to_numpy(), kind="stable")
    groups: dict[str, list[int]] = {title: [] for title in sorted(set(titles))}
    for row in order:
        if len(groups[titles[row]]) < n_per_group:
            groups[titles[row]].append(int(row))
    return groups


def _stain(cell: object) -> str:
    return cell if isinstance(cell, str) and not pd.isna(cell) else "stain unknown"


def _read_one(item: tuple[int, Path]) -> RgbImage:
    return read_image(item[1])


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell_px: int,
    *,
    name: str,
    image: RgbImage | None,
) -> None:
    left, top = corner
    if image is None:
        right, lower = left + cell_px - 1, top + cell_px - 1
        draw.rectangle((left, top, right, lower), outline="red")
        draw.line((left, top, right, lower), fill="red")
        draw.line((left, lower, right, top), fill="red")
    else:
        picture = Image.fromarray(image)
        scale = cell_px / max(picture.size)
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
    draw.text((left, top + cell_px + 1), _fitted(name, cell_px), fill="black", font=_font(10))


def _fitted(name: str, width_px: int) -> str:
    """Shorten a name from the left, where names of one cohort are alike."""
    font = _font(10)
    if font.getlength(name) <= width_px:
        return name
    while name and font.getlength(f"…{name}") > width_px:
        name = name[1:]
    return f"…{name}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
