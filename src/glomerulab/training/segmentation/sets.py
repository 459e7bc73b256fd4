"""The sets of a training: which images and slides there are, and where their masks lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glomerulab.cohort.schema import STAINS
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import ConfigError, GlomerulabError, ImageFileError
from glomerulab.runtime.files import exists, stated_path
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import read_cells
from glomerulab.training.segmentation.config import SegmenterConfig, SetConfig, set_name
from glomerulab.training.segmentation.fields import (
    Field,
    ImageField,
    ImageSource,
    MemoryBudget,
    SlideField,
    SlideSource,
)
from glomerulab.training.segmentation.masks import Vocabulary

__all__ = ["FieldFailure", "Fields", "open_fields"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class FieldFailure:
    """A field that cannot be used."""

    name: str
    set_name: str
    reason: str


@dataclass(slots=True)
class Fields:
    """All fields of a training, and what cannot be used."""

    usable: list[Field] = field(default_factory=list)
    failures: list[FieldFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_fields(config: SegmenterConfig, *, track: Track = silent) -> Fields:
    """Open the fields of all sets, and read their masks once.

    A field that cannot be read becomes a `FieldFailure`.

    Raises
    ------
    GlomerulabError
        If a folder or table of a set cannot be read or holds nothing, or no field can be used.
    """
    structures = config.ordered_structures()
    budget = MemoryBudget()
    found = Fields()
    for one in config.sets:
        vocabulary = Vocabulary(structures, one.knows)
        sources: Sequence[ImageSource | SlideSource] = (
            _slides_of(one, config, vocabulary)
            if one.outline_classes()
            else _images_of(one, config, vocabulary, budget)
        )
        for source in track(sources, f"Reading {set_name(one)}", len(sources)):
            try:
                opened = _open(source)
            except GlomerulabError as error:
                place = f"{error.where}: " if error.where else ""
                found.failures.append(
                    FieldFailure(source.name, set_name(one), place + error.message)
                )
                continue
            found.usable.append(opened)
            found.notes += [f"{source.name}: {note}" for note in opened.notes]
    if not found.usable:
        first = found.failures[0]
        raise ImageFileError(
            f"no image of the sets can be used; the first, {first.name}: {first.reason}"
        )
    return found


def _open(source: ImageSource | SlideSource) -> ImageField | SlideField:
    return ImageField(source) if isinstance(source, ImageSource) else SlideField(source)


def _slides_of(
    one: SetConfig, config: SegmenterConfig, vocabulary: Vocabulary
) -> list[SlideSource]:
    if one.masks is None:
        raise ConfigError(
            f"the set {set_name(one)!r} has no masks; set masks to the region file, or "
            "to the folder with one per image"
        )
    entries = [
        entry
        for entry in read_slides(one.images)
        if _is_wanted({**dict(entry.further), "stain": entry.stain or ""}, one)
    ]
    if not entries:
        raise _nothing(one)
    columns = {"patient_id", *(name for entry in entries for name, _ in entry.further)}
    if one.group is not None and one.group not in columns:
        raise ConfigError(
            f"the slides have no column {one.group!r} to group by; correct group, or leave it out "
            "to group by patient",
            where=str(one.images),
        )
    return [
        SlideSource(entry.slide_id, entry, one.masks, one, config, vocabulary) for entry in entries
    ]


def _images_of(
    one: SetConfig, config: SegmenterConfig, vocabulary: Vocabulary, budget: MemoryBudget
) -> list[ImageSource]:
    if one.images.suffix.lower() == ".csv" and not one.images.is_dir():
        rows = _rows(one)
    elif one.images.is_dir():
        paths = sorted(p for p in one.images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if one.masks is None or one.masks == one.images:  # masks lie beside the images
            paths = [p for p in paths if not (one.mask_suffix and _is_mask(p, one))]
        rows = [{"image": str(path)} for path in paths]
    else:
        raise ConfigError(
            f"the images of the set {set_name(one)!r} do not exist; give a folder of images or a "
            "table (CSV) with the column image",
            where=str(one.images),
        )
    if not rows:
        raise _nothing(one)
    sources = []
    folder = one.images if one.images.is_dir() else one.images.parent
    for row in rows:
        path = stated_path(folder, row["image"])
        name = path.stem
        stain = row.get("stain") or one.stain
        if stain is not None and stain not in STAINS:
            raise ConfigError(
                f"image {name}: unknown stain {stain!r} (known: {', '.join(STAINS)})",
                where=str(one.images),
            )
        sources.append(
            ImageSource(
                name,
                path,
                _masks_of(path, row, one, folder),
                stain,
                (row.get(one.group) if one.group else None) or name,
                one.mpp if not row.get("mpp") else _number(row["mpp"], one),
                one,
                config,
                vocabulary,
                budget,
            )
        )
    return sources


def _rows(one: SetConfig) -> list[dict[str, str]]:
    """Return the wanted rows of the table of a set."""
    table = read_cells(one.images, name="table of images", error=ConfigError)
    column = next((c for c in ("image", "image_path", "slide_path") if c in table.columns), None)
    if column is None:
        raise ConfigError(
            "the table of images has no column image; name the column of the files so",
            where=str(one.images),
        )
    for wanted in (*one.where, *([one.group] if one.group else [])):
        if wanted not in table.columns:
            raise ConfigError(
                f"the table of images has no column {wanted!r}; it has {', '.join(table.columns)}",
                where=str(one.images),
            )
    return [{**row, "image": row[column]} for row in table.rows if _is_wanted(row, one)]


def _is_wanted(row: Mapping[str, str], one: SetConfig) -> bool:
    return all(row.get(column, "") in wanted for column, wanted in one.where.items())


def _masks_of(
    path: Path, row: Mapping[str, str], one: SetConfig, folder: Path
) -> Mapping[str, Path]:
    if one.folders:
        return {name: _mask_in(place, path.stem, one) for name, place in one.folders.items()}
    if row.get("mask"):
        return {"": stated_path(one.masks or folder, row["mask"])}
    return {"": _mask_in(one.masks or path.parent, path.stem, one)}


def _mask_in(folder: Path, stem: str, one: SetConfig) -> Path:
    """Return the mask of an image; if there is none, the name that it should have."""
    names = [folder / f"{stem}{one.mask_suffix}{suffix}" for suffix in MASK_SUFFIXES]
    return next((path for path in names if exists(path)), names[0])


def _is_mask(path: Path, one: SetConfig) -> bool:
    return path.stem.endswith(one.mask_suffix)


def _nothing(one: SetConfig) -> ConfigError:
    return ConfigError(
        f"the set {set_name(one)!r} has no image{' of these rows' if one.where else ''}; correct "
        f"images{' or where' if one.where else ''}",
        where=str(one.images),
    )


def _number(text: str, one: SetConfig) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(
            f"mpp must be the micrometres per pixel of the image, got {text!r}",
            where=str(one.images),
        )
    return value
