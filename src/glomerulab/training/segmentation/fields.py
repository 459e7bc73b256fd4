"""Fields: images and slides with their labels, each read in parts."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from glomerulab.cohort.slides_table import SlideEntry, region_file_of
from glomerulab.errors import ImageFileError, MissingMppError
from glomerulab.geometry import Box
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.runtime.files import exists
from glomerulab.slides.regions.features import Feature
from glomerulab.slides.regions.files import read_region_file
from glomerulab.slides.regions.selection import on_slide
from glomerulab.slides.slide import Slide, open_slide
from glomerulab.structures.tissue import find_tissue
from glomerulab.training.segmentation.config import SegmenterConfig, SetConfig, set_name
from glomerulab.training.segmentation.masks import (
    Labels,
    Outlines,
    Vocabulary,
    nearest,
    read_label_image,
    read_mask_images,
)

__all__ = [
    "Field",
    "FieldFacts",
    "ImageField",
    "ImageSource",
    "MemoryBudget",
    "SlideField",
    "SlideSource",
    "Window",
]

MAX_CACHE_BYTES = 1_000_000_000
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
    notes: list[str]
    """What of its labels was mended or left out."""

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


@dataclass(frozen=True, slots=True)
class ImageSource:
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
    budget: "MemoryBudget"


@dataclass(frozen=True, slots=True)
class SlideSource:
    """A slide, or an image, with outlines."""

    name: str
    entry: SlideEntry
    masks: Path
    """The region file, or the folder with one per slide."""
    set: SetConfig
    config: SegmenterConfig
    vocabulary: Vocabulary


class ImageField:
    """An image file with masks that are images."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._kept: tuple[RgbImage, Labels] | None = None
        self.notes: list[str] = []
        self.vocabulary = source.vocabulary
        digest = hashlib.sha256()
        for path in (source.path, *source.masks.values()):
            if exists(path) and path.is_file():
                digest.update(path.read_bytes())
        self.facts = FieldFacts(
            source.name,
            set_name(source.set),
            source.group,
            source.stain,
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
        """Return pixels and labels at the mpp of the training, from memory or the files."""
        source = self._source
        if self._kept is not None:
            return self._kept
        mpp = source.mpp
        if mpp is None:
            raise ImageFileError(
                "the micrometres per pixel of the image are not known; give mpp for its set, or a "
                "column mpp in the table",
                where=str(source.path),
            )
        image = read_image(source.path)
        size = image.shape[1], image.shape[0]
        factor = mpp / source.config.mpp
        width, height = (max(1, round(side * factor)) for side in size)
        if source.set.values:
            labels = read_label_image(
                source.masks[""],
                size,
                source.set.numbered_values(),
                source.vocabulary,
                mpp=source.config.mpp,
                sampling=(width, height),
            )
        else:
            labels = read_mask_images(
                source.masks,
                size,
                source.vocabulary,
                mpp=source.config.mpp,
                sampling=(width, height),
            )
        content = (image if (width, height) == size else resized(image, width, height), labels)
        if source.budget.take(content[0].nbytes + 3 * labels.present.nbytes):
            self._kept = content
        return content


class SlideField:
    """A slide, or an image, with outlines."""

    def __init__(self, source: SlideSource) -> None:
        self._source, entry = source, source.entry
        self.vocabulary = source.vocabulary
        one = source.set
        self._mpp = entry.mpp or one.mpp
        masks = source.masks
        path = region_file_of(entry, masks) if masks.is_dir() else masks
        content = read_region_file(path)
        features = on_slide(content.features, (entry.slide_id, *entry.other_names))
        with _opened(entry.path, self._mpp) as slide:
            own, width, height = slide.mpp_xy, *slide.dimensions
            self._step = source.config.mpp / own[0], source.config.mpp / own[1]
            stain = entry.stain or one.stain or slide.stain
            _check_size(features, (width, height), where=str(path))
            from_bounds = any(f.counts_from_bounds for f in features)
            self._outlines = Outlines.of(
                features,
                one.outline_classes(),
                mpp=own,
                offset=slide.bounds_offset if from_bounds else (0.0, 0.0),
            )
            mask = find_tissue(slide).mask
        self.notes = [note.en for note in content.notes] + self._outlines.notes
        self._tissue = np.argwhere(mask)
        self._tissue_shape = mask.shape
        self._tree = shapely.STRtree(self._outlines.areas)
        self.size = max(1, round(width / self._step[0])), max(1, round(height / self._step[1]))
        further = dict(entry.further)
        group = further.get(one.group) if one.group else entry.patient_id
        labels = path.read_bytes() + repr(((width, height), own)).encode()
        self.facts = FieldFacts(
            source.name,
            set_name(one),
            group or entry.patient_id or entry.slide_id,
            stain,
            is_synthetic=further.get("synthetic", "").lower() in {"1", "true", "yes"},
            digest=hashlib.sha256(labels).hexdigest()[:16],
        )
        self.anchors = self._boxes()

    def _boxes(self) -> dict[int, list[Anchor]]:
        """Return the boxes of the outlines of each structure, by its number."""
        found: dict[int, list[Anchor]] = {}
        x, y = self._step
        for area, names in zip(self._outlines.areas, self._outlines.names, strict=True):
            left, top, right, bottom = area.bounds
            bits = self.vocabulary.bits(names)
            for k in range(len(self.vocabulary.structures)):
                if bits >> k & 1:
                    found.setdefault(k, []).append((left / x, top / y, right / x, bottom / y))
        return found

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
        mpp = self._source.config.mpp * extent[0] / size[0]
        slide = _kept_slide(self._source.entry.path, self._mpp)
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


class MemoryBudget:
    """How much of the images and their labels is kept in memory."""

    def __init__(self, n_bytes: int = MAX_CACHE_BYTES) -> None:
        self._n_bytes = n_bytes

    def take(self, n_bytes: int) -> bool:
        """Return whether so many bytes more can be kept; then they count."""
        if n_bytes > self._n_bytes:
            return False
        self._n_bytes -= n_bytes
        return True


def _check_size(features: Iterable[Feature], size: tuple[int, int], *, where: str) -> None:
    """Raise an error for outlines that were drawn on an image of another size."""
    for one in features:
        if one.image_size is not None and one.image_size != size:
            width, height = one.image_size
            raise ImageFileError(
                f"{one.place} was drawn on an image of {width:g} x {height:g} pixels, and the "
                f"image has {size[0]} x {size[1]}; give the outlines of this image",
                where=where,
            )


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
