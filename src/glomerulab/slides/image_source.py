"""A plain image (PNG, JPEG, TIFF in strips) as a slide of one level.

It is held in memory as a whole; `glomerulab.images.MAX_PIXELS` bounds it.
"""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from glomerulab.errors import ImageFileError, SlideError
from glomerulab.images import read_image

__all__ = ["ImageSource"]


class ImageSource:
    """A plain image with the interface of `OpenSlideSource`.

    Parameters
    ----------
    path : Path
        Anything that `glomerulab.images.read_image` reads.

    Raises
    ------
    SlideError
        If it is not an image, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._image = Image.fromarray(read_image(path)).convert("RGBA")
        except ImageFileError as error:
            reason = error.message
            if reason.startswith("not an image"):
                reason = "neither a slide that OpenSlide knows nor an image; damaged or cut short?"
            raise SlideError(reason, where=str(path)) from error

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of the only level."""
        return (self._image.size,)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """The only level is level 0."""
        return (1.0,)

    @property
    def properties(self) -> Mapping[str, str]:
        """Nothing: the resolution an image file states is that of print, not of a microscope."""
        return {}

    @property
    def associated_images(self) -> tuple[str, ...]:
        """None."""
        return ()

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read pixels; what lies outside the image is transparent.

        Parameters
        ----------
        level : int
            0.
        corner : tuple of int
            Upper left corner (x, y).
        size : tuple of int
            Width and height.

        Returns
        -------
        Image
            RGBA.

        Raises
        ------
        ValueError
            If `level` is not 0.
        """
        if level != 0:
            raise ValueError(f"a plain image has only level 0, got {level}")
        (x, y), (width, height) = corner, size
        return self._image.crop((x, y, x + width, y + height))

    def close(self) -> None:
        """Give the memory back."""
        self._image.close()
