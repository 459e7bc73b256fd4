"""Files that are there whole or not at all.

Everything the package writes goes to a temporary name beside its place and is renamed when it is
complete, so that a killed run, a full disk or a reader in between never sees half a file.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glomerulab.errors import OutputError

__all__ = ["PARTIAL_MARK", "atomic_write", "file_mark", "make_folder", "remove_partial_files"]

PARTIAL_MARK = ".partial-"
"""Stands in the name of every file that is still being written."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends well.

    The temporary name keeps the suffix of `path`, since many writers choose the format by it. On
    any error the temporary file is removed and what stood at `path` before is untouched.

    Parameters
    ----------
    path : Path
        Where the file goes in the end. Its folder must exist.

    Yields
    ------
    Path
        The temporary path, in the same folder.

    Raises
    ------
    OutputError
        If the file system refuses the write (read-only, full, no such folder).

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_whole(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    if not path.parent.is_dir():
        # Asked here, since some writers raise an error without a number for it.
        raise OutputError("cannot write: no such folder", where=str(path))
    temporary = path.with_name(f".{path.stem}{PARTIAL_MARK}{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if not _is_about_writing(error):
            raise
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write: {reason}", where=str(path)) from error
    finally:
        _remove_if_there(temporary)


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, or say why not.

    Parameters
    ----------
    path : Path
        The folder; it may exist already.

    Returns
    -------
    Path
        `path` itself.

    Raises
    ------
    OutputError
        If it cannot be made, or a file stands in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot make this folder: {reason}", where=str(path)) from error
    return path


def remove_partial_files(folder: Path) -> int:
    """Delete what a killed run left half written below a folder.

    Parameters
    ----------
    folder : Path
        Searched with all its subfolders.

    Returns
    -------
    int
        How many files were deleted.
    """
    leftovers = [path for path in folder.rglob(f".*{PARTIAL_MARK}*") if path.is_file()]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def _flush_to_disk(path: Path) -> None:
    """Make the bytes outlive a power cut before the name points at them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_about_writing(error: OSError) -> bool:
    # Pillow and others raise OSErrors without a number about the *content*: not ours.
    return error.errno is not None


def _remove_if_there(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is gone or read-only: the first error tells it better
        return


def file_mark(path: Path) -> tuple[int, int]:
    """Return size and modification time of a file; zeros where it is missing.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of int
        Bytes, and nanoseconds since 1970.
    """
    if not path.is_file():
        return 0, 0
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
