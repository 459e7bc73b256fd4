"""Pixels and properties of a slide file: OpenSlide's formats (with DICOM) and plain images.

The only module that holds an OpenSlide handle. Sources give pixels as they are in the file, with
transparency; mpp, regions and padding are left to `glomerulab.slides.slide`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from openslide import OpenSlide, OpenSlideError
from PIL import Image

from glomerulab.errors import ImageFileError, SlideError
from glomerulab.image_headers import MAX_TILE_PIXELS, check_tiff_cost
from glomerulab.images import read_image
from glomerulab.slides.dicom import read_header
from glomerulab.slides.scale import image_file_scale, with_described_scale
from glomerulab.slides.tiff_structure import stored_orientation

GENERIC_TIFF = "generic-tiff"
"""OpenSlide's name of a tiled TIFF that no scanner's software wrote."""


DICOM = "dicom"
TIFF_VENDORS = frozenset({"aperio", GENERIC_TIFF, "leica", "philips", "trestle", "ventana"})
"""Formats of tiles in a TIFF; Hamamatsu's has neither tiles nor offsets of 32 bits."""

N_TILES_READ = 16
"""JPEG tiles of each level, the longest, that are looked into when a slide is opened."""


class PixelSource(Protocol):
    """The interface of an open slide file."""

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of every level, level 0 first."""
        ...

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Factor from each level to level 0, rising."""
        ...

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata of the file, under OpenSlide's names."""
        ...

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of the images beside the pyramid, such as label and macro."""
        ...

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read RGBA pixels of one level, transparent outside the slide.

        `corner` is the upper left corner (x, y) in level-0 pixels, `size` the width and height in
        pixels of `level`. After a `SlideError` the source has to be opened again.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def detect_vendor(path: Path) -> str | None:
    """Return OpenSlide's name of a file's format (``aperio``, ``dicom``), None if unknown."""
    vendor: str | None = OpenSlide.detect_format(path)
    return vendor


class OpenSlideSource:
    """A `PixelSource` of a file for which `detect_vendor` returns a format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _refuse_costly(path)
            self._handle = OpenSlide(path)
        except (OpenSlideError, OSError) as error:
            raise SlideError(
                f"the slide cannot be opened ({error}); copy it again, or save it as a pyramidal "
                "TIFF",
                where=str(path),
            ) from error
        except ImageFileError as error:
            raise SlideError(error.message, where=str(path)) from error
        if self._handle.properties.get("openslide.vendor") == GENERIC_TIFF:
            self._refuse_turned()

    def _refuse_turned(self) -> None:
        """Refuse pixels that are to be turned for display, which OpenSlide does not do."""
        orientation = stored_orientation(self.path)
        if orientation in {0, 1}:
            return
        self.close()
        raise SlideError(
            f"the TIFF is stored turned or mirrored (orientation {orientation}), which is not "
            "applied to slides; save it upright, for instance with `vips autorot IN.tif "
            "OUT.tif[tile,pyramid]`, and draw the regions on that copy",
            where=str(self.path),
        )

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of every level."""
        return tuple(self._handle.level_dimensions)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Factor from each level to level 0."""
        return tuple(self._handle.level_downsamples)

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata under OpenSlide's names."""
        found = dict(self._handle.properties)
        if found.get("openslide.vendor") != GENERIC_TIFF:
            return found
        return with_described_scale(found, found.get("tiff.ImageDescription", ""))

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of the images beside the pyramid."""
        return tuple(sorted(self._handle.associated_images))

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read RGBA pixels of one level."""
        try:
            return self._handle.read_region(corner, level, size)
        except (OpenSlideError, OSError) as error:
            raise SlideError(
                f"the pixels of the slide cannot be read ({error}); the file may be damaged: copy "
                "it again",
                where=str(self.path),
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def _refuse_costly(path: Path) -> None:
    """Raise `ImageFileError` if one tile would fill the memory or take minutes."""
    vendor = detect_vendor(path)
    if vendor in TIFF_VENDORS:
        with path.open("rb") as stream:
            check_tiff_cost(stream, max_pixels=None, n_tiles_read=N_TILES_READ)
    elif vendor == DICOM:
        for file in {path, *path.parent.glob("*.dcm")}:
            _refuse_large_frames(file)


def _refuse_large_frames(file: Path) -> None:
    """Check a file of a DICOM slide; OpenSlide opens those beside it too."""
    header = read_header(file, ["Rows", "Columns"])
    if header is None:
        return  # which OpenSlide leaves out or refuses
    try:
        width, height = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    except (TypeError, ValueError):
        return  # likewise
    if width * height > MAX_TILE_PIXELS:
        raise ImageFileError(
            f"a frame of {file.name} has {width} x {height} pixels, more than the "
            f"{MAX_TILE_PIXELS:,} allowed; export the slide with frames of 256 x 256 pixels"
        )


class ImageSource:
    """A `PixelSource` of a plain image (PNG, JPEG, TIFF in strips), held in memory as one level.

    Its size is limited by `glomerulab.images.MAX_PIXELS`.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._image = Image.fromarray(read_image(path)).convert("RGBA")
            self._properties = image_file_scale(path)
        except ImageFileError as error:
            raise SlideError(
                "the file can be opened neither as a slide nor as an image "
                f"({error.message}); it may be damaged or cut short",
                where=str(path),
            ) from error

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of every level."""
        return (self._image.size,)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Factor from each level to level 0."""
        return (1.0,)

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata under OpenSlide's names."""
        return self._properties

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of the images beside the pyramid."""
        return ()

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read RGBA pixels of one level."""
        if level != 0:
            raise ValueError(f"a plain image has only level 0, got {level}")
        (x, y), (width, height) = corner, size
        return self._image.crop((x, y, x + width, y + height))

    def close(self) -> None:
        """Close the file."""
        self._image.close()
