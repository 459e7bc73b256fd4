"""Pixels and properties of the slides that OpenSlide reads, DICOM among them.

The only module that holds an OpenSlide handle. It must not know of mpp, regions or padding: it
gives pixels with their transparency, as they lie in the file.
"""

from collections.abc import Mapping
from pathlib import Path

from openslide import OpenSlide, OpenSlideError
from PIL import Image

from glomerulab.errors import SlideError

__all__ = ["OpenSlideSource", "detect_vendor"]


def detect_vendor(path: Path) -> str | None:
    """Return OpenSlide's name for the format of a file, or None if it knows none.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        For instance ``aperio``, ``generic-tiff``, ``dicom``.
    """
    vendor: str | None = OpenSlide.detect_format(path)
    return vendor


class OpenSlideSource:
    """A slide opened by OpenSlide.

    Parameters
    ----------
    path : Path
        A file for which `detect_vendor` has an answer.

    Raises
    ------
    SlideError
        If OpenSlide refuses the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = OpenSlide(path)
        except (OpenSlideError, OSError) as error:
            raise SlideError(f"cannot be opened: {error}", where=str(path)) from error

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of every level, level 0 first."""
        return tuple(self._handle.level_dimensions)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Factor from each level to level 0."""
        return tuple(self._handle.level_downsamples)

    @property
    def properties(self) -> Mapping[str, str]:
        """What the file says of itself, under OpenSlide's names."""
        return dict(self._handle.properties)

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of the images beside the pyramid, such as label and macro."""
        return tuple(sorted(self._handle.associated_images))

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read pixels of one level; what lies outside the slide is transparent.

        Parameters
        ----------
        level : int
        corner : tuple of int
            Upper left corner (x, y) in level-0 pixels.
        size : tuple of int
            Width and height in pixels of `level`.

        Returns
        -------
        Image
            RGBA.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded. The handle is of no use after that.
        """
        try:
            return self._handle.read_region(corner, level, size)
        except (OpenSlideError, OSError) as error:
            raise SlideError(f"cannot be read: {error}", where=str(self.path)) from error

    def close(self) -> None:
        """Give the file back."""
        self._handle.close()
