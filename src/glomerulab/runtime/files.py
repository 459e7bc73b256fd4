"""Atomic file writes, file locks, and the one reader of text, JSON and TOML.

Everything the package writes goes to a temporary name beside its place and is renamed when it is
complete, so that a killed run, a full disk or a reader in between never sees half a file.
"""

import codecs
import errno
import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
import tomllib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from glomerulab.errors import ConfigError, GlomerulabError, OutputError

__all__ = [
    "NO_ROOM",
    "PARTIAL_INFIX",
    "StrPath",
    "allowed_permissions",
    "atomic_write",
    "decode_utf8",
    "disk_error",
    "exclusive_lock",
    "existing_path",
    "exists",
    "flush_folder",
    "is_running",
    "lock_file",
    "make_folder",
    "new_folder",
    "output_errors",
    "partial_folder",
    "private_opener",
    "read_configuration",
    "read_json",
    "read_utf8",
    "remove_partial_files",
    "size_and_mtime",
    "stated_path",
]

StrPath = str | os.PathLike[str]
"""A path of a public function: text, or any path object."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of the errors of a disk, or a share of it, that is full."""
GROUP_ACCESS = "GLOMERULAB_GROUP_ACCESS"
PARTIAL_INFIX = ".partial-"
"""Part of the name of every file that is still being written."""
WRITER = re.compile(rf"{PARTIAL_INFIX}([0-9a-f]{{4}})-(\d+)-[0-9a-f]{{8}}")
OTHER_MACHINE_S = 3600.0
"""Age from which an unfinished file of another machine is one of a killed process."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` when the block ends without error.

    On any error the temporary file is removed and `path` stays untouched. Other people cannot read
    the file, see `allowed_permissions`.

    Parameters
    ----------
    path : Path
        The final place. Its folder must exist.

    Yields
    ------
    Path
        In the same folder and with the suffix of `path`, since many writers choose the format by
        the suffix.

    Raises
    ------
    OutputError
        If the file system refuses the write (read-only, full, no such folder).

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("complete")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    if not path.parent.is_dir():
        # Checked here, since some writers raise an error without a number for it.
        raise OutputError("the file cannot be written: its folder does not exist", where=str(path))
    temporary = partial_path(path)
    try:
        yield temporary
        temporary.chmod(temporary.stat().st_mode & allowed_permissions())
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:  # Pillow and others: about the content, not about writing
            raise
        raise _cannot_write("the file cannot be written", path, error) from error
    finally:
        _remove_if_exists(temporary)


def allowed_permissions() -> int:
    """Return the bits that files and folders may have: of the user, and of a group that is told.

    The environment variable ``GLOMERULAB_GROUP_ACCESS=1`` lets the group of a file use it as far as
    the umask does.
    """
    return 0o770 if os.environ.get(GROUP_ACCESS) == "1" else 0o700


def private_opener(path: str, flags: int) -> int:
    """Open a file, as the argument ``opener`` of `open`; others cannot read a new one."""
    return os.open(path, flags, 0o666 & allowed_permissions())


def make_folder(path: Path) -> Path:
    """Make a folder and its parents where they do not exist, and return it.

    Other people cannot look into a new one, see `allowed_permissions`.

    Raises
    ------
    OutputError
        If it cannot be made, or a file has its name.
    """
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir(mode=allowed_permissions(), exist_ok=True)
    except OSError as error:
        raise _cannot_write("the folder cannot be made", path, error) from error
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder as `make_folder`; if the block fails before it writes a file, remove it again.

    A folder that was there before stays, even if it is empty.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    try:
        yield path
    except BaseException:
        if made:
            inside = sorted(path.rglob("*"), reverse=True)  # below comes before above
            _remove_empty([folder for folder in inside if folder.is_dir()])
            _remove_empty(made)
        raise


def partial_path(path: Path) -> Path:
    """Return an unused name for a file or folder that gets the name `path` when it is complete.

    It tells machine and process, so that `remove_partial_files` finds it after a kill.
    """
    machine_and_process = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem}{PARTIAL_INFIX}{machine_and_process}{path.suffix}")


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Make a folder under a `partial_path`, and remove it if it still has that name at the end."""
    folder = make_folder(partial_path(path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_partial_files(place: Path) -> int:
    """Delete the unfinished files and folders of killed processes, and return their number.

    Those that a process writes now stay.

    Parameters
    ----------
    place : Path
        A folder, of which all below is searched; or a file, whose own are deleted alone.
    """
    if place.is_dir():
        found = place.rglob(f".*{PARTIAL_INFIX}*")
    else:
        name = glob.escape(f".{place.stem}{PARTIAL_INFIX}")
        found = place.parent.glob(f"{name}*{glob.escape(place.suffix)}")
    leftovers = [path for path in found if not _is_being_written(path)]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:4]


def _is_being_written(path: Path) -> bool:
    written_by = WRITER.search(path.name)
    if written_by is None:  # of an earlier version
        return False
    machine, process = written_by.groups()
    if machine != _machine():  # whose processes cannot be seen
        try:
            return time.time() - path.stat().st_mtime < OTHER_MACHINE_S
        except FileNotFoundError:  # it has its name now
            return True
    return is_running(int(process))


def is_running(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    try:  # one that was killed keeps its number until its parent asks, in some containers for ever
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # no Linux
        return True
    return state not in {b"Z", b"X"}


@contextmanager
def exclusive_lock(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file; the lock ends with the block, and with the process if it is killed.

    Parameters
    ----------
    path : Path
        The lock file, made if it does not exist. Its folder must exist.
    busy : str, optional
        Message of the error when another process holds the lock; without one, wait for it.

    Raises
    ------
    OutputError
        If the lock is held, or the file cannot be written; `where` is its folder.
    """
    folder = path.parent
    try:
        # Private: who can open it can lock it.
        file = open(path, "w", encoding="utf-8", opener=private_opener)  # noqa: SIM115
    except OSError as error:
        raise _cannot_write("the folder cannot be written to", folder, error) from error
    with file:
        try:
            lock_file(file, wait=busy is None)
        except BlockingIOError as error:
            raise OutputError(busy or "", where=str(folder)) from error
        except OSError as error:
            # Some network file systems have no locks; there, cases of a cohort are claimed by
            # files, and anything else relies on its user.
            if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise _cannot_write("the folder cannot be locked", folder, error) from error
        try:
            yield
        except BaseException:
            if all(one == path or one.is_dir() for one in folder.rglob("*")):
                path.unlink(missing_ok=True)  # nothing was written: leave no trace
            raise


def lock_file(file: IO[str] | IO[bytes], *, wait: bool = True) -> None:
    """Lock an open file until it is closed.

    Raises
    ------
    BlockingIOError
        If another process holds the lock and `wait` is False.
    """
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def read_configuration(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML configuration, and its values.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not valid TOML.
    """
    text = read_utf8(path, "configuration", error=ConfigError, way_out="give a TOML file")
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the configuration is not valid TOML ({error}); correct that place", where=str(path)
        ) from error


def existing_path(path: Path) -> Path:
    """Return a path as the disk spells it, where it differs in Unicode form only.

    macOS decomposes accented letters; tables and other systems compose them. A path without such a
    file is returned as it is.
    """
    if str(path).isascii() or exists(path):
        return path
    place = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts if path.anchor else path.parts:
        place = place / _spelling_in(place, part)
    return place if exists(place) else path


def stated_path(folder: Path, text: str) -> Path:
    """Return the path that a table states, relative to its folder or absolute.

    Backslashes separate folders, as Windows writes them, unless a file has them in its name.
    """
    path = existing_path(folder / text)
    if "\\" in text and not path.exists():
        return existing_path(folder / text.replace("\\", "/"))
    return path


def read_utf8(
    path: StrPath, name: str, *, error: type[GlomerulabError], way_out: str = "check its path"
) -> str:
    """Return the text of a file, without the byte order mark that some editors write.

    Parameters
    ----------
    path : Path
    name : str
        What the file is, as messages name it, such as ``configuration``.
    error : type
        Raised if the file is missing, cannot be read, or is not UTF-8.
    way_out : str, optional
        End of the message about a missing file, such as "give the folder that X wrote".
    """
    content = read_content(path, name, error=error, way_out=way_out)
    return decode_utf8(content, name, error=error, where=str(path))


def read_content(
    path: StrPath, name: str, *, error: type[GlomerulabError], way_out: str = "check its path"
) -> bytes:
    """Return the bytes of a file; parameters as for `read_utf8`."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError) as failure:  # ValueError: a NUL
        raise error(f"there is no such {name}; {way_out}", where=str(path)) from failure
    except IsADirectoryError as failure:
        raise error(
            f"this is a folder and not a {name}; give the file", where=str(path)
        ) from failure
    except OSError as failure:
        reason = failure.strerror or failure
        raise error(
            f"the {name} cannot be read ({reason}); check the permissions", where=str(path)
        ) from failure


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; not one of a name that no disk takes."""
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def decode_utf8(
    content: bytes, name: str, *, error: type[GlomerulabError], where: str | None = None
) -> str:
    """Return the text of a file from its bytes, as `read_utf8`."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise error(f"the {name} is text in UTF-16; save it as UTF-8", where=where)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(
            f"the {name} is not text in UTF-8 (byte {failure.start}); save it as UTF-8, or copy it "
            "again if nobody edited it",
            where=where,
        ) from failure


def read_json(
    path: StrPath, name: str, *, error: type[GlomerulabError], way_out: str = "check its path"
) -> Any:  # noqa: ANN401 - JSON is anything until it is checked
    """Return the value of a JSON file; errors as for `read_utf8`, and if it is not JSON."""
    content = read_content(path, name, error=error, way_out=way_out)
    return parse_json(content, name, error=error, where=str(path))


def parse_json(content: bytes, name: str, *, error: type[GlomerulabError], where: str) -> Any:  # noqa: ANN401 - as for read_json
    """Return the value of a JSON file from its bytes, as `read_json`."""
    text = decode_utf8(content, name, error=error, where=where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(
            f"the {name} is not valid JSON ({failure}); correct it, or copy it again if nobody "
            "edited it",
            where=where,
        ) from failure


def size_and_mtime(path: Path) -> tuple[int, int]:
    """Return bytes, and nanoseconds since 1970 of the last change; zeros for a missing file."""
    if not path.is_file():
        return 0, 0
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _spelling_in(folder: Path, name: str) -> str:
    if name.isascii() or exists(folder / name) or not exists(folder):
        return name
    composed = unicodedata.normalize("NFC", name)
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
    return next((one for one in names if unicodedata.normalize("NFC", one) == composed), name)


@contextmanager
def output_errors(what: str, path: Path) -> Iterator[None]:
    """Raise an `OSError` of the block, such as that of a full disk, as `OutputError`."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(what, path, error) from error


def disk_error(error: OSError) -> OutputError | None:
    """Return the error of a disk that takes nothing more; None for an error of another kind."""
    if error.errno not in {*NO_ROOM, errno.EROFS, errno.EFBIG}:
        return None
    way_out = "make room" if error.errno in NO_ROOM else "make it take more, or choose another one"
    return OutputError(
        f"the disk takes nothing more ({error.strerror}); {way_out}, and run the same command "
        "again",
        where=None if error.filename is None else str(error.filename),
    )


def _cannot_write(what: str, path: Path, error: OSError) -> OutputError:
    return OutputError(f"{what}: {error.strerror or error}", where=str(path))


def flush_folder(folder: Path) -> None:
    """Make the name of a new file outlive a power cut."""
    _flush_to_disk(folder)


def _flush_to_disk(path: Path) -> None:
    """Make the bytes outlive a power cut before the name points at them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders in this order, except those that hold something."""
    for folder in folders:
        if not any(folder.iterdir()):
            folder.rmdir()


def _remove_if_exists(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder is gone or read-only, which the first error reports better
        return
