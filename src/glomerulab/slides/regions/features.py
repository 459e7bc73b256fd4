"""What region files say about objects, and what users say about region files.

Every reader yields `Feature`; `glomerulab.slides.regions.selection` decides which features are
glomeruli and places them on the slide.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from glomerulab.errors import ConfigError
from glomerulab.geometry import Point
from glomerulab.i18n.catalogue import LANGUAGES, translate

__all__ = [
    "DEFAULT_OPTIONS",
    "Feature",
    "Part",
    "RegionFile",
    "RegionNote",
    "RegionOptions",
    "SlideFrame",
    "class_key",
]

MPP_RANGE = (0.001, 1000.0)


@dataclass(frozen=True, slots=True)
class Part:
    """One closed area, in the pixels of the file."""

    outline: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Feature:
    """One object of a region file."""

    place: str
    """Where it stands in the file, such as ``feature 3``."""
    number: str
    """Its number in the file, the id of a feature without a name or an id."""
    name: str | None = None
    own_id: str | None = None
    """The id that the file gives, such as QuPath's UUID."""
    classes: tuple[str, ...] = ()
    object_type: str = "annotation"
    """``annotation``, or QuPath's ``cell``, ``tile``, ``tmaCore``, ``detection``, ``root``."""
    parent: str | None = None
    """Place of the object that holds it."""
    slide_id: str | None = None
    parts: tuple[Part, ...] = ()
    is_single: bool = False
    """The format defines an object as one instance, however many parts it has."""
    rotation: float = 0.0
    """Degrees clockwise on screen, about the centre of the box."""
    image_size: tuple[float, float] | None = None
    """Width and height of the image that it was drawn on, where the file states them."""
    drawn_mpp: float | None = None
    """Micrometres per pixel of that image, where the file states them."""
    counts_from_bounds: bool = False
    """Coordinates start at the corner of the slide's bounds, as QuPath's do."""
    skipped: str | None = None
    """Why it is no area: ``no area``, ``no geometry``, ``blank`` or ``negative``."""
    failure: str | None = None
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class RegionNote:
    """A sentence on what was done with region files."""

    en: str
    zh: str

    @classmethod
    def of(cls, text: str, **values: object) -> Self:
        """Make a note of an English text in the catalogue and what its braces hold."""
        return cls(*(translate(text, language, **values) for language in LANGUAGES))


@dataclass(frozen=True, slots=True)
class RegionFile:
    """The content of a region file."""

    path: Path
    features: tuple[Feature, ...]
    notes: tuple[RegionNote, ...] = ()


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """How region files are read; the same for every command.

    Parameters
    ----------
    classes : tuple of str
        ``NAME`` or ``NAME=LABEL``: only objects of these classes are glomeruli; a label replaces
        the name. Empty: all classes but tissue outlines and classes that end in ``*``.
    skip_classes : tuple of str
        Names of classes that are left out.
    ignore_bounds : bool, default False
        GeoJSON coordinates start at the slide's corner, not at its bounds as QuPath's do.
    drawn_mpp : float, optional
        Micrometres per pixel of the image that the regions were drawn on, from 0.001 to 1000;
        coordinates are scaled from there to level 0.

    Raises
    ------
    ConfigError
        If a name is empty, is taken and left out, or has two labels.
    """

    classes: tuple[str, ...] = ()
    skip_classes: tuple[str, ...] = ()
    ignore_bounds: bool = False
    drawn_mpp: float | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions and values out of range."""
        labels: dict[str, str | None] = {}
        for given in self.classes:
            name, label = split_class_option(given)
            if labels.setdefault(class_key(name), label) != label:
                raise ConfigError(f"class {name!r} is given two labels; give --class once for it")
        skipped = {class_key(name) for name in self.skip_classes}
        if "" in labels.values():
            raise ConfigError("--class NAME=LABEL needs a label after the equals sign")
        if "" in labels or "" in skipped:
            raise ConfigError("--class and --skip-class need the name of a class")
        if both := labels.keys() & skipped:
            raise ConfigError(
                f"class {min(both)!r} is given with --class and with --skip-class; keep one of them"
            )
        lowest, highest = MPP_RANGE
        if self.drawn_mpp is not None and not lowest <= self.drawn_mpp <= highest:
            raise ConfigError(
                f"the drawn mpp must be from {lowest:g} to {highest:g}, got {self.drawn_mpp}"
            )

    def labels_by_class(self) -> dict[str, str | None]:
        """Return the label of each class given, by `class_key`; None where it keeps its name."""
        pairs = (split_class_option(given) for given in self.classes)
        return {class_key(name): label for name, label in pairs}

    def record(self) -> dict[str, object]:
        """Return the options for the record of a run."""
        return {
            "classes": list(self.classes),
            "skip_classes": list(self.skip_classes),
            "ignore_bounds": self.ignore_bounds,
            "drawn_mpp": self.drawn_mpp,
        }


DEFAULT_OPTIONS = RegionOptions()


class _OpenSlide(Protocol):
    @property
    def dimensions(self) -> tuple[int, int]: ...

    @property
    def bounds_offset(self) -> Point: ...

    @property
    def mpp_xy(self) -> tuple[float, float]: ...

    @property
    def stated_mpp_xy(self) -> tuple[float, float] | None: ...


@dataclass(frozen=True, slots=True)
class SlideFrame:
    """The level 0 on which regions are placed."""

    size: tuple[int, int] | None = None
    """Width and height; None: not known, so that stated image sizes are not compared."""
    bounds_offset: Point = (0.0, 0.0)
    mpp_xy: tuple[float, float] | None = None
    """Micrometres per pixel in use, of `RegionOptions.drawn_mpp` and of a table or an option; None
    where only the file states them, or nothing does."""
    stated_mpp_xy: tuple[float, float] | None = None
    """As the slide's file states them; None: not compared with what region files state."""

    @classmethod
    def of(cls, slide: _OpenSlide, options: RegionOptions | None = None) -> Self:
        """Return the frame of an open slide; errors as for `Slide.mpp_xy` with a drawn mpp."""
        is_scaled = options is not None and options.drawn_mpp is not None
        mpp_xy = slide.mpp_xy if is_scaled else None
        return cls(slide.dimensions, slide.bounds_offset, mpp_xy, slide.stated_mpp_xy)


def split_class_option(given: str) -> tuple[str, str | None]:
    """Split ``NAME=LABEL`` at its last equals sign.

    Examples
    --------
    >>> split_class_option("Global sclerosis=gsg"), split_class_option("cgn")
    (('Global sclerosis', 'gsg'), ('cgn', None))
    """
    name, equals, label = given.rpartition("=")
    return (name.strip(), label.strip()) if equals else (given.strip(), None)


def class_key(name: str) -> str:
    """Return a class name for comparison: composed, case-folded, single blanks."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def rotated(points: Sequence[Point], degrees: float) -> list[Point]:
    """Return points turned clockwise on screen about the centre of their box."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    centre = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    turn = math.radians(degrees)
    cosine, sine = math.cos(turn), math.sin(turn)
    offsets = [(x - centre[0], y - centre[1]) for x, y in points]
    return [
        (centre[0] + dx * cosine - dy * sine, centre[1] + dx * sine + dy * cosine)
        for dx, dy in offsets
    ]
