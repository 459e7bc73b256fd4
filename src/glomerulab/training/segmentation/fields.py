"""Fields: the images and slides of the sets, each read in parts together with its labels."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from glomerulab.cohort.schema import STAINS
from glomerulab.cohort.slides_table import (
    SlideEntry,
    read_slides,
    region_file_of,
)
from glomerulab.errors import ConfigError, GlomerulabError, ImageFileError, MissingMppError
from glomerulab.geometry import Box
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.runtime.files import stated_path
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import read_cells
from glomerulab.slides.regions.files import read_region_file
from glomerulab.slides.regions.selection import on_slide
from glomerulab.slides.slide import Slide, open_slide
from glomerulab.stain.optical_density import tissue_mask
from glomerulab.training.segmentation.config import SegmenterConfig, SetConfig, set_name
from glomerulab.training.segmentation.masks import (
    Labels,
    Outlines,
    Vocabulary,
    nearest,
    read_label_image,
    read_mask_images,
)

__all__ = ["Field", "FieldFacts", "FieldFailure", "Fields", "Window", "open_fields"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
MAX_CACHE_BYTES = 1_000_000_000
TISSUE_MPP = 16.0
ANCHOR_STEP = 4
"""Pixels between those in which places of structures are looked for."""
WINDOW_PX = 4096

Anchor = tuple[float, float, float, float]
"""A box with a structure in it: left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """What is known of a field besides its pixels."""

    name: str
    set_name: str
    group: str
    """Fields of one group are trained on together, or held out together."""
    stain: str | None
    is_synthetic: bool
    digest: str
    """Start of the SHA-256 of what its labels, and of an image its pixels, are read from."""


@dataclass(frozen=True, slots=True)
class FieldFailure:
    """A field that cannot be used."""

    name: str
    set_name: str
    reason: str


class Window(NamedTuple):
    """A part of a field, in pixels at the mpp of the training."""

    left: int
    top: int
    width: int
    height: int


class Field(Protocol):
    """An image or a slide with its labels; all lengths are pixels at the mpp of the training."""

    facts: FieldFacts
    vocabulary: Vocabulary
    size: tuple[int, int]
    """Width and height."""
    anchors: dict[int, list[Anchor]]
    """Places of each structure, by its number."""

    def somewhere(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a random place, on tissue where that is known."""
        ...

    def read(
        self, centre: tuple[float, float], side: float, out_px: int
    ) -> tuple[RgbImage, Labels]:
        """Read a square around a place, resampled to `out_px`."""
        ...

    def read_window(self, window: Window) -> tuple[RgbImage, Labels]:
        """Read a part as it is."""
        ...

    def windows(self) -> Iterator[Window]:
        """Yield the parts that cover it."""
        ...


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
    cache = _Cache()
    found = Fields()
    for one in config.sets:
        vocabulary = Vocabulary(structures, one.knows)
        openers: Sequence[_ImageOpener | _SlideOpener] = (
            _slides_of(one, config, vocabulary)
            if one.outline_classes()
            else _images_of(one, config, vocabulary, cache)
        )
        for opener in track(openers, f"Reading {set_name(one)}", len(openers)):
            try:
                opened, notes = opener.open()
            except GlomerulabError as error:
                place = f"{error.where}: " if error.where else ""
                found.failures.append(
                    FieldFailure(opener.name, set_name(one), place + error.message)
                )
                continue
            found.usable.append(opened)
            found.notes += [f"{opener.name}: {note}" for note in notes]
    if not found.usable:
        first = found.failures[0]
        raise ImageFileError(
            f"no image of the sets can be used; the first, {first.name}: {first.reason}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _ImageOpener:
    """An image file with masks that are images."""

    name: str
    path: Path
    masks: Mapping[str, Path]
    """By structure; one without a name for a label image."""
    stain: str | None
    group: str
    mpp: float | None
    set: SetConfig
    config: SegmenterConfig
    vocabulary: Vocabulary
    cache: "_Cache"

    def open(self) -> "tuple[Field, list[str]]":
        return ImageField(self), []


@dataclass(frozen=True, slots=True)
class _SlideOpener:
    """A slide, or an image, with outlines."""

    name: str
    entry: SlideEntry
    set: SetConfig
    config: SegmenterConfig
    vocabulary: Vocabulary

    def open(self) -> "tuple[Field, list[str]]":
        opened = SlideField(self)
        return opened, opened.notes


class ImageField:
    """An image file with masks that are images."""

    def __init__(self, opener: _ImageOpener) -> None:
        self._opener = opener
        self.vocabulary = opener.vocabulary
        digest = hashlib.sha256()
        for path in (opener.path, *opener.masks.values()):
            if path.is_file():
                digest.update(path.read_bytes())
        self.facts = FieldFacts(
            opener.name,
            set_name(opener.set),
            opener.group,
            opener.stain,
            is_synthetic=False,
            digest=digest.hexdigest()[:16],
        )
        pixels, labels = self._content()
        self.size = pixels.shape[1], pixels.shape[0]
        self.anchors = {
            k: boxes
            for k in range(len(self.vocabulary.structures))
            if (boxes := _boxes_of((labels.present >> k) & 1 == 1))
        }

    def somewhere(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a random place."""
        x, y = rng.random(2) * self.size
        return float(x), float(y)

    def read(
        self, centre: tuple[float, float], side: float, out_px: int
    ) -> tuple[RgbImage, Labels]:
        """Read a square; what lies beyond the image is its mirror image."""
        pixels, labels = self._content()
        n = max(1, round(side))
        columns, rows = (
            _mirrored(_start(at, n, length), n, length)
            for at, length in zip(centre, self.size, strict=True)
        )
        image = np.ascontiguousarray(pixels[np.ix_(rows, columns)])
        if n != out_px:
            image = resized(image, out_px, out_px)
            chosen = nearest(n, out_px)
            rows, columns = rows[chosen], columns[chosen]
        return image, labels.resampled(rows, columns)

    def read_window(self, window: Window) -> tuple[RgbImage, Labels]:
        """Read a part as it is."""
        pixels, labels = self._content()
        rows = np.arange(window.top, window.top + window.height)
        columns = np.arange(window.left, window.left + window.width)
        return pixels[np.ix_(rows, columns)], labels.resampled(rows, columns)

    def windows(self) -> Iterator[Window]:
        """Yield the parts that cover it."""
        return _windows(self.size)

    def _content(self) -> tuple[RgbImage, Labels]:
        """Return pixels and labels at the mpp of the training, from the cache or the files."""
        opener = self._opener
        kept = opener.cache.get(opener.path, opener.name)
        if kept is not None:
            return kept
        mpp = opener.mpp
        if mpp is None:
            raise ImageFileError(
                "the micrometres per pixel of the image are not known; give mpp for its set, or a "
                "column mpp in the table",
                where=str(opener.path),
            )
        image = read_image(opener.path)
        size = image.shape[1], image.shape[0]
        factor = mpp / opener.config.mpp
        width, height = (max(1, round(side * factor)) for side in size)
        if opener.set.values:
            labels = read_label_image(
                opener.masks[""],
                size,
                opener.set.numbered_values(),
                opener.vocabulary,
                mpp=opener.config.mpp,
                sampling=(width, height),
            )
        else:
            labels = read_mask_images(
                opener.masks,
                size,
                opener.vocabulary,
                mpp=opener.config.mpp,
                sampling=(width, height),
            )
        content = (image if (width, height) == size else resized(image, width, height), labels)
        opener.cache.put(opener.path, opener.name, content)
        return content


class SlideField:
    """A slide, or an image, with outlines."""

    def __init__(self, opener: _SlideOpener) -> None:
        self._opener, entry = opener, opener.entry
        self.vocabulary = opener.vocabulary
        one = opener.set
        self._mpp = entry.mpp or one.mpp
        with _opened(entry.path, self._mpp) as slide:
            own = slide.mpp_xy
            self._step = opener.config.mpp / own[0], opener.config.mpp / own[1]
            self._dimensions = slide.dimensions
            stain = entry.stain or one.stain or slide.stain
            masks = one.masks
            if masks is None:
                raise ConfigError("the set has outlines and no masks: their file or folder")
            path = region_file_of(entry, masks) if masks.is_dir() else masks
            content = read_region_file(path)
            features = on_slide(content.features, (entry.slide_id, *entry.other_names))
            for one_feature in features:
                drawn = one_feature.image_size
                if drawn is not None and drawn != slide.dimensions:
                    raise ImageFileError(
                        f"{one_feature.place} was drawn on an image of {drawn[0]:g} x {drawn[1]:g} "
                        f"pixels, and the image has {slide.dimensions[0]} x {slide.dimensions[1]}; "
                        "give the outlines of this image",
                        where=str(path),
                    )
            from_bounds = any(f.counts_from_bounds for f in features)
            self._outlines = Outlines.of(
                features,
                one.outline_classes(),
                mpp=own,
                offset=slide.bounds_offset if from_bounds else (0.0, 0.0),
            )
            tissue = slide.read_region(Box(0, 0, *slide.dimensions), mpp=TISSUE_MPP)
            mask = tissue_mask(tissue, np.array(slide.background, dtype=np.float64))
        self.notes = [note.en for note in content.notes] + self._outlines.notes
        self._tissue = np.argwhere(mask)
        self._tissue_shape = mask.shape
        self._tree = shapely.STRtree(self._outlines.areas)
        self.size = (
            max(1, round(self._dimensions[0] / self._step[0])),
            max(1, round(self._dimensions[1] / self._step[1])),
        )
        further = dict(entry.further)
        group = further.get(one.group) if one.group else entry.patient_id
        self.facts = FieldFacts(
            opener.name,
            set_name(one),
            group or entry.patient_id or entry.slide_id,
            stain,
            is_synthetic=further.get("synthetic", "").lower() in {"1", "true", "yes"},
            digest=hashlib.sha256(
                path.read_bytes() + repr((self._dimensions, own)).encode()
            ).hexdigest()[:16],
        )
        self.anchors: dict[int, list[Anchor]] = {}
        for area, names in zip(self._outlines.areas, self._outlines.names, strict=True):
            left, top, right, bottom = area.bounds
            box = (
                left / self._step[0],
                top / self._step[1],
                right / self._step[0],
                bottom / self._step[1],
            )
            bits = self.vocabulary.bits(names)
            for k in range(len(self.vocabulary.structures)):
                if bits >> k & 1:
                    self.anchors.setdefault(k, []).append(box)

    def somewhere(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a random place on tissue."""
        if not len(self._tissue):
            x, y = rng.random(2) * self.size
            return float(x), float(y)
        row, column = self._tissue[rng.integers(len(self._tissue))] + rng.random(2)
        height, width = self._tissue_shape
        return float(column * self.size[0] / width), float(row * self.size[1] / height)

    def read(
        self, centre: tuple[float, float], side: float, out_px: int
    ) -> tuple[RgbImage, Labels]:
        """Read a square; what lies beyond the slide is glass."""
        return self._read(
            (centre[0] - side / 2, centre[1] - side / 2), (side, side), (out_px, out_px)
        )

    def read_window(self, window: Window) -> tuple[RgbImage, Labels]:
        """Read a part as it is."""
        size = window.width, window.height
        return self._read((window.left, window.top), size, size)

    def windows(self) -> Iterator[Window]:
        """Yield the parts with tissue or outlines that cover it."""
        for window in _windows(self.size):
            area = shapely.box(
                window.left * self._step[0],
                window.top * self._step[1],
                (window.left + window.width) * self._step[0],
                (window.top + window.height) * self._step[1],
            )
            height, width = self._tissue_shape
            x = self._tissue[:, 1] * self.size[0] / width - window.left
            y = self._tissue[:, 0] * self.size[1] / height - window.top
            has_tissue = ((x >= 0) & (x < window.width) & (y >= 0) & (y < window.height)).any()
            if has_tissue or len(self._tree.query(area)):
                yield window

    def _read(
        self, corner: tuple[float, float], extent: tuple[float, float], size: tuple[int, int]
    ) -> tuple[RgbImage, Labels]:
        x, y = (round(at * step) for at, step in zip(corner, self._step, strict=True))
        width, height = (
            max(1, round(length * step)) for length, step in zip(extent, self._step, strict=True)
        )
        mpp = self._opener.config.mpp * extent[0] / size[0]
        slide = _kept_slide(self._opener.entry.path, self._mpp)
        image = slide.read_region(Box(x, y, width, height), mpp=mpp)
        if image.shape[:2] != size[::-1]:
            image = resized(image, *size)
        near = self._tree.query(shapely.box(x, y, x + width, y + height))
        labels = self._outlines.draw(
            self.vocabulary,
            (x, y),
            (width / size[0], height / size[1]),
            size,
            chosen=near.tolist(),
        )
        return image, labels


@lru_cache(maxsize=8)
def _kept_slide(path: Path, mpp: float | None) -> Slide:
    return _opened(path, mpp)


def _opened(path: Path, mpp: float | None) -> Slide:
    slide = open_slide(path, mpp_override=mpp)
    try:
        _ = slide.mpp_xy
    except MissingMppError as error:
        slide.close()
        raise MissingMppError(
            "the micrometres per pixel of the image are not known; give mpp for its set, or a "
            "column mpp in the slides table",
            where=error.where,
        ) from error
    return slide


class _Cache:
    """Pixels and labels of images, up to `MAX_CACHE_BYTES`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], tuple[RgbImage, Labels]] = {}
        self._n_bytes = 0

    def get(self, path: Path, name: str) -> tuple[RgbImage, Labels] | None:
        return self._kept.get((path, name))

    def put(self, path: Path, name: str, content: tuple[RgbImage, Labels]) -> None:
        n_bytes = content[0].nbytes + 3 * content[1].present.nbytes
        if self._n_bytes + n_bytes <= MAX_CACHE_BYTES:
            self._kept[path, name] = content
            self._n_bytes += n_bytes


def _slides_of(
    one: SetConfig, config: SegmenterConfig, vocabulary: Vocabulary
) -> list[_SlideOpener]:
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
    return [_SlideOpener(entry.slide_id, entry, one, config, vocabulary) for entry in entries]


def _images_of(
    one: SetConfig, config: SegmenterConfig, vocabulary: Vocabulary, cache: _Cache
) -> list[_ImageOpener]:
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
    openers = []
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
        openers.append(
            _ImageOpener(
                name,
                path,
                _masks_of(path, row, one, folder),
                stain,
                (row.get(one.group) if one.group else None) or name,
                one.mpp if not row.get("mpp") else _number(row["mpp"], one),
                one,
                config,
                vocabulary,
                cache,
            )
        )
    return openers


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
    return next((path for path in names if path.is_file()), names[0])


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


def _boxes_of(mask: npt.NDArray[np.bool_]) -> list[Anchor]:
    """Return the boxes around the parts of a mask."""
    objects, _ = ndimage.label(mask[::ANCHOR_STEP, ::ANCHOR_STEP])
    return [
        (
            float(columns.start * ANCHOR_STEP),
            float(rows.start * ANCHOR_STEP),
            float(columns.stop * ANCHOR_STEP),
            float(rows.stop * ANCHOR_STEP),
        )
        for rows, columns in ndimage.find_objects(objects)
    ]


def _start(centre: float, n: int, length: int) -> int:
    """Return where a span around a place starts, inside the image if it fits."""
    first = round(centre - n / 2)
    return max(0, min(first, length - n)) if n <= length else first


def _mirrored(first: int, n: int, length: int) -> npt.NDArray[np.intp]:
    """Return the indices of a span, mirrored at both ends of the axis."""
    index = np.arange(first, first + n) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def _windows(size: tuple[int, int]) -> Iterator[Window]:
    width, height = size
    for top in range(0, height, WINDOW_PX):
        for left in range(0, width, WINDOW_PX):
            yield Window(left, top, min(WINDOW_PX, width - left), min(WINDOW_PX, height - top))


def groups_of(fields: Sequence[Field]) -> dict[str, list[Field]]:
    """Return the fields of each group."""
    found: dict[str, list[Field]] = {}
    for one in fields:
        found.setdefault(one.facts.group, []).append(one)
    return found
