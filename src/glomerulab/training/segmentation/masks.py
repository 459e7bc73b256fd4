"""Masks of structures: label images, one image per structure, and outlines of any region format.

All of them become `Labels`: for each pixel the structures that are present, those that are known to
be present or absent, and those whose core it belongs to, as bits.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image
from scipy import ndimage
from skimage.measure import label as components

from glomerulab.errors import ImageFileError, RegionError
from glomerulab.image_headers import check_cost
from glomerulab.images import MAX_PIXELS
from glomerulab.runtime.files import exists
from glomerulab.slides.regions.features import Feature, class_key
from glomerulab.slides.regions.polygons import filled
from glomerulab.structures.classes import KNOWN_STRUCTURES, structure
from glomerulab.structures.maps import Bits

__all__ = ["IGNORE", "Labels", "Outlines", "Vocabulary", "read_label_image", "read_mask_images"]

IGNORE = "ignore"
"""In place of a structure: areas of which nothing is known."""
BORDER_SHARE, BORDER_UM = 0.2, (4.0, 24.0)
"""Width of the border between the outline of an object and its core: this share of its inner
radius, within these limits. It is seen beside a glomerulus that touches another, and a tubule keeps
its core."""
MAX_LISTED = 5
KNOWN_IDS = frozenset(one.id for one in KNOWN_STRUCTURES)
ZONES = frozenset({"cortex", "medulla"})

Values = Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The structures of a training in the order of their bits, and what a set knows of them."""

    structures: tuple[str, ...]
    knows: tuple[str, ...] = ()
    """Structures that the set labels wherever they are. Of others it labels some."""

    def bits(self, ids: Iterable[str]) -> int:
        """Return the bits of structures, and of those that hold them; unknown ids have none."""
        found = 0
        for one in ids:
            if one in self.structures:
                found |= 1 << self.structures.index(one)
            if (holder := structure(one).within) is not None:
                found |= self.bits([holder])
        return found

    def object_bits(self, ids: Iterable[str]) -> int:
        """Return the bits of the structures of which an object of these is one."""
        found = 0
        for one in ids:
            if structure(one).kind == "object":
                holder = structure(one).within
                found |= self.bits([one]) if holder is None else self.object_bits([holder])
                found |= self.bits([one])
        return found

    def exclusions(self) -> dict[int, int]:
        """Return, by the bit of a known structure, the bits of those that are never where it is.

        Structures lie apart unless one holds the other; cortex and medulla hold all of them.
        """
        alone = {
            one: {one, *_holders(one)}
            for one in self.structures
            if one in KNOWN_IDS and one not in ZONES
        }
        return {
            1 << self.structures.index(one): sum(
                1 << self.structures.index(other)
                for other, its_holders in alone.items()
                if not holders & its_holders
            )
            for one, holders in alone.items()
        }

    @property
    def known_bits(self) -> int:
        """Bits of what the set knows."""
        return sum(1 << self.structures.index(one) for one in self.knows if one in self.structures)


@dataclass(frozen=True, eq=False, slots=True)
class Labels:
    """What is known of each pixel, as bits; three arrays of shape (H, W)."""

    present: Bits
    known: Bits
    core: Bits

    def resampled(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Self:
        """Return the pixels at these rows and columns."""
        grid = np.ix_(rows, columns)
        return type(self)(self.present[grid], self.known[grid], self.core[grid])

    def targets(self, n_structures: int, cores: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return the target of each channel, shape (K + C, H, W): 0, 1, or 2 where unknown.

        Parameters
        ----------
        cores : sequence of int
            Bits, by number, of the structures whose core has a channel.
        """
        layers = [(self.present, k) for k in range(n_structures)] + [(self.core, k) for k in cores]
        found = np.empty((len(layers), *self.present.shape), np.uint8)
        for channel, (layer, k) in enumerate(layers):
            is_known = (self.known >> k) & 1 == 1
            found[channel] = np.where(is_known, (layer >> k) & 1, 2)
        return found


def read_label_image(
    path: Path,
    size: tuple[int, int],
    values: Values,
    vocabulary: Vocabulary,
    *,
    mpp: float,
    sampling: tuple[int, int],
) -> Labels:
    """Read an image whose values stand for structures.

    Parameters
    ----------
    size : tuple of int
        Width and height of the image that it belongs to.
    values : mapping of int to tuple of str
        Structures of each value, or `IGNORE`; 0 is none of them unless given. Of a colour image,
        the value is ``0xRRGGBB``.
    mpp : float
        Micrometres per pixel of the result.
    sampling : tuple of int
        Width and height of the result; nearest pixels are taken.

    Raises
    ------
    ImageFileError
        If it cannot be read, has another size, or values that are not in the table.
    """
    pixels = _read_pixels(path, size)
    if pixels.dtype == np.bool_:  # viewers show it as 0 and 255
        pixels = pixels.astype(np.int64) * (255 if 255 in values else 1)
    table = {0: (), **values}
    others = sorted(set(np.unique(pixels).tolist()) - table.keys())
    if others:
        shown = ", ".join(_value(one, pixels) for one in others[:MAX_LISTED])
        more = f" and {len(others) - MAX_LISTED} more" if len(others) > MAX_LISTED else ""
        hint = "; JPEG changes values, so save masks as PNG" if len(others) > MAX_LISTED else ""
        raise ImageFileError(
            f"the mask has values that are not in the table: {shown}{more}; add them to the "
            f"values of the set, as ignore where nothing is known of them{hint}",
            where=str(path),
        )
    layers = [(np.asarray(pixels == value), names) for value, names in table.items() if names]
    return _labels(layers, vocabulary, mpp=mpp, size=size, sampling=sampling)


def read_mask_images(
    paths: Mapping[str, Path],
    size: tuple[int, int],
    vocabulary: Vocabulary,
    *,
    mpp: float,
    sampling: tuple[int, int],
) -> Labels:
    """Read one image per structure; every pixel above 0 belongs to it. As `read_label_image`."""
    layers = [(_read_pixels(path, size).astype(np.bool_), (name,)) for name, path in paths.items()]
    return _labels(layers, vocabulary, mpp=mpp, size=size, sampling=sampling)


@dataclass(frozen=True, eq=False, slots=True)
class Outlines:
    """Outlines of structures on one image or slide, in its pixels."""

    areas: list[shapely.Geometry]
    cores: list[shapely.Geometry]
    """Of `areas`, empty where it is no object."""
    names: list[tuple[str, ...]]
    notes: list[str]
    """What was mended or left out."""

    @classmethod
    def of(
        cls,
        features: Sequence[Feature],
        classes: Mapping[str, tuple[str, ...]],
        *,
        mpp: tuple[float, float],
        scale: tuple[float, float] = (1.0, 1.0),
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> Self:
        """Take the features of the given classes.

        Parameters
        ----------
        features : sequence of Feature
            Of this image.
        classes : mapping of str to tuple of str
            Structures of each class, or `IGNORE`.
        mpp : tuple of float
            Micrometres per pixel of the image, x and y.
        scale, offset : tuple of float
            Coordinates are multiplied by the one, then the other is added.

        Raises
        ------
        RegionError
            If one of these features is damaged, or no feature has one of the classes.
        """
        table = {class_key(name): ids for name, ids in classes.items()}
        found = cls([], [], [], [])
        others: dict[str, int] = {}
        for one in features:
            names = tuple(
                dict.fromkeys(id_ for c in one.classes for id_ in table.get(class_key(c), ()))
            )
            if not names:
                name = ", ".join(one.classes) or "no class"
                others[name] = others.get(name, 0) + 1
                continue
            found._add(one, names, mpp, scale, offset)
        if features and others and not found.areas and not found.notes:
            raise RegionError(
                f"no object has a class of the set; the file has {', '.join(sorted(others))}; "
                "correct the classes of the set"
            )
        found.notes.extend(f"{n} objects of class {name} left out" for name, n in others.items())
        return found

    def _add(
        self,
        feature: Feature,
        names: tuple[str, ...],
        mpp: tuple[float, float],
        scale: tuple[float, float],
        offset: tuple[float, float],
    ) -> None:
        if feature.failure is not None:
            raise RegionError(
                f"{feature.place}: {feature.failure.removeprefix(f'{feature.place}: ')}; correct "
                "it, since its place would count as background"
            )
        if feature.skipped is not None or not feature.parts:
            self.notes.append(f"{feature.place} left out: {feature.skipped or 'no outline'}")
            return
        area, is_mended = _area_of(feature)
        if area.is_empty:
            self.notes.append(f"{feature.place} left out: its outline bounds no area")
            return
        if is_mended:
            self.notes.append(f"{feature.place} crosses itself; it was mended")
        area = shapely.transform(area, lambda points: points * scale + np.array(offset))
        core = shapely.Polygon()
        if any(structure(name).kind == "object" for name in names):
            pixel = float(np.sqrt(mpp[0] * mpp[1]))
            # Twice area by length is the radius of a disc, and half the width of a strip.
            inner_radius = 2.0 * area.area / area.length
            core = area.buffer(-float(border_um(inner_radius * pixel)) / pixel)
        self.areas.append(area)
        self.cores.append(core)
        self.names.append(names)

    def draw(
        self,
        vocabulary: Vocabulary,
        corner: tuple[float, float],
        step: tuple[float, float],
        size: tuple[int, int],
        chosen: Collection[int] | None = None,
    ) -> Labels:
        """Draw the outlines of a part of the image.

        Parameters
        ----------
        corner : tuple of float
            Left upper corner of the part, in pixels of the image.
        step : tuple of float
            Pixels of the image per pixel of the result, x and y.
        size : tuple of int
            Width and height of the result.
        chosen : collection of int, optional
            Numbers of the outlines that may lie in the part.
        """
        width, height = size
        present = np.zeros((height, width), np.uint16)
        core, ignored = present.copy(), np.zeros((height, width), np.bool_)
        for number in range(len(self.areas)) if chosen is None else sorted(chosen):
            names = self.names[number]
            if IGNORE in names:
                for place, inside in _pixels(self.areas[number], corner, step, (height, width)):
                    ignored[place][inside] = True
                continue
            bits = np.uint16(vocabulary.bits(names))
            for place, inside in _pixels(self.areas[number], corner, step, (height, width)):
                present[place][inside] |= bits
            bits = np.uint16(vocabulary.object_bits(names))
            for place, inside in _pixels(self.cores[number], corner, step, (height, width)):
                core[place][inside] |= bits
        return _known(present, core, ignored, vocabulary)


def _holders(structure_id: str) -> set[str]:
    """Return the structures that hold one, directly or not."""
    holder = structure(structure_id).within
    return set() if holder is None else {holder, *_holders(holder)}


def _read_pixels(path: Path, size: tuple[int, int]) -> npt.NDArray[np.generic]:
    """Return a mask as integers or booleans, shape (H, W); colours as 0xRRGGBB."""
    if not exists(path):
        raise ImageFileError(
            "there is no mask of the image; give one, or correct masks, mask_suffix or folders of "
            "the set",
            where=str(path),
        )
    _check_cost(path)
    try:
        with Image.open(path) as image:
            if image.size != size:
                raise ImageFileError(
                    f"the mask has {image.width} x {image.height} pixels and its image {size[0]} x "
                    f"{size[1]}; give a mask of the same size",
                    where=str(path),
                )
            pixels = np.asarray(image)
            if image.mode == "LA":
                pixels = pixels[..., 0]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"the mask cannot be read: {error}", where=str(path)) from error
    if pixels.ndim == 3:
        red, green, blue = (pixels[..., k].astype(np.int64) for k in range(3))
        is_grey = np.array_equal(red, green) and np.array_equal(red, blue)
        return red if is_grey else (red << 16) | (green << 8) | blue
    return pixels


def _check_cost(path: Path) -> None:
    try:
        with path.open("rb") as file:
            check_cost(file, max_pixels=MAX_PIXELS)
    except (OSError, ImageFileError) as error:
        raise ImageFileError(f"the mask cannot be read: {error}", where=str(path)) from error


def _value(value: int, pixels: npt.NDArray[np.generic]) -> str:
    return f"#{value:06x}" if int(pixels.max()) > 0xFFFF else str(value)


def _labels(
    layers: Sequence[tuple[npt.NDArray[np.bool_], tuple[str, ...]]],
    vocabulary: Vocabulary,
    *,
    mpp: float,
    size: tuple[int, int],
    sampling: tuple[int, int],
) -> Labels:
    columns, rows = (nearest(own, wanted) for own, wanted in zip(size, sampling, strict=True))
    grid = np.ix_(rows, columns)
    present = np.zeros((sampling[1], sampling[0]), np.uint16)
    core, ignored = present.copy(), np.zeros(present.shape, np.bool_)
    for mask, names in layers:
        if IGNORE in names:
            ignored |= mask[grid]
            continue
        present[mask[grid]] |= np.uint16(vocabulary.bits(names))
        if bits := vocabulary.object_bits(names):
            # Before pixels are left out, which could join two objects.
            objects = components(mask)  # type: ignore[no-untyped-call]
            core[cores_of(objects[grid], mpp=mpp)] |= np.uint16(bits)
    return _known(present, core, ignored, vocabulary)


def nearest(n_own: int, n_wanted: int) -> npt.NDArray[np.intp]:
    """Return the pixel of an axis that is nearest to each of a coarser or finer one."""
    return ((np.arange(n_wanted) + 0.5) * n_own / n_wanted).astype(np.intp)


def cores_of(objects: npt.NDArray[np.integer], *, mpp: float) -> npt.NDArray[np.bool_]:
    """Return the pixels of objects that are far from the border, shape (H, W).

    Parameters
    ----------
    objects : ndarray of int, shape (H, W)
        0 outside; each object has a number.
    """
    inside = objects > 0
    for before, after in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):  # where two objects touch, both end
        one, other = objects[before], objects[after]
        apart = (one == other) | (one == 0) | (other == 0)
        inside[before] &= apart
        inside[after] &= apart
    if not inside.any() or inside.all():
        return inside
    distance = ndimage.distance_transform_edt(inside) * mpp
    numbers = np.arange(int(objects.max()) + 1)
    largest = ndimage.maximum(distance, objects, numbers)
    border = border_um(np.asarray(largest))
    found: npt.NDArray[np.bool_] = inside & (distance > border[objects])
    return found


def border_um(inner_radius: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the width of the border of objects from their inner radius, both in µm."""
    radius = np.asarray(inner_radius, np.float64)
    return np.minimum(np.clip(BORDER_SHARE * radius, *BORDER_UM), 0.5 * radius)


def _known(
    present: Bits, core: Bits, ignored: npt.NDArray[np.bool_], vocabulary: Vocabulary
) -> Labels:
    known = present | np.uint16(vocabulary.known_bits)
    for bit, apart in vocabulary.exclusions().items():
        known[present & np.uint16(bit) > 0] |= np.uint16(apart)
    known[ignored] = 0
    return Labels(present, known, core & present)


def _area_of(feature: Feature) -> tuple[shapely.Geometry, bool]:
    """Return the area of all parts of a feature, and whether it was mended."""
    areas, is_mended = [], False
    for part in feature.parts:
        points = np.asarray(part.outline, dtype=np.float64)
        if len(points) < 3 or not np.isfinite(points).all():
            continue
        holes = [hole for hole in part.holes if len(hole) >= 3]
        area = shapely.Polygon(part.outline, holes)
        if not area.is_valid:
            is_mended = True
            area = shapely.make_valid(shapely.Polygon(part.outline))
            for hole in holes:
                area = area.difference(shapely.make_valid(shapely.Polygon(hole)))
        areas += [one for one in _polygons(area) if one.area > 0]
    return shapely.union_all(areas), is_mended


def _polygons(area: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Yield the polygons of a geometry; mending can add lines and points to them."""
    for one in shapely.get_parts(area):
        if one.geom_type == "Polygon" and not one.is_empty:
            yield one
        elif one.geom_type.startswith("Multi") or one.geom_type == "GeometryCollection":
            yield from _polygons(one)


def _pixels(
    area: shapely.Geometry,
    corner: tuple[float, float],
    step: tuple[float, float],
    shape: tuple[int, int],
) -> Iterator[tuple[tuple[slice, slice], npt.NDArray[np.bool_]]]:
    """Yield the pixels whose centre lies in a part of an area, as `filled`."""
    # Areas such as the cortex have thousands of points and holes elsewhere.
    right, bottom = (at + n * by for at, n, by in zip(corner, shape[::-1], step, strict=True))
    near = shapely.clip_by_rect(
        area, corner[0] - step[0], corner[1] - step[1], right + step[0], bottom + step[1]
    )
    for one in _polygons(near):
        rings = [shapely.get_coordinates(ring) for ring in (one.exterior, *one.interiors)]
        yield filled(rings, corner=corner, step=step, shape=shape)
