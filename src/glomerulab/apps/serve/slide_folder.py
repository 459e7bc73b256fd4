"""From what a client calls a slide to a file of the allowed folder, and to no other file.

The answer never tells whether something exists elsewhere.
"""

from pathlib import Path, PurePosixPath

from glomerulab.errors import NotAllowedError, UnknownRecordError

__all__ = ["SlideFolder"]

MAX_LENGTH = 1024


class SlideFolder:
    """The one folder that jobs may read.

    Parameters
    ----------
    root : Path
        Must exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, name: str) -> Path:
        """Return the file or folder of a name.

        Parameters
        ----------
        name : str
            Relative to the root, parts separated by ``/``; ``.`` is the root itself.

        Returns
        -------
        Path
            Absolute, without symbolic links.

        Raises
        ------
        NotAllowedError
            If the name is absolute, climbs, or a symbolic link leads out of the root.
        UnknownRecordError
            If there is no such file or folder.
        """
        parts = PurePosixPath(name).parts
        if (
            not name
            or len(name) > MAX_LENGTH
            or name.startswith("/")
            or ".." in parts
            or "\\" in name
            or not name.isprintable()
        ):
            raise NotAllowedError("a path must be relative to the slides folder and lie in it")
        place = self._below(self.root.joinpath(*parts))
        if not place.exists():
            raise UnknownRecordError(f"there is no {PurePosixPath(name)} in the slides folder")
        if place.is_dir():
            # A DICOM slide, or a folder of region files: its files are read by their own names.
            for child in place.iterdir():
                self._below(child)
        return place

    def _below(self, path: Path) -> Path:
        """Follow symbolic links, and refuse those that lead out."""
        try:
            place = path.resolve()
        except (OSError, RuntimeError) as error:  # a link to itself
            raise NotAllowedError("the path cannot be followed") from error
        if place != self.root and self.root not in place.parents:
            raise NotAllowedError("a symbolic link there leads out of the slides folder")
        return place
