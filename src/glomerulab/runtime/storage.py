"""Objects of an S3 storage as files of this machine: a bounded cache, and uploads.

Everything else of the package works on paths. An object ``s3://bucket/key`` has its place at
``s3/bucket/key`` in the cache folder, so that the relative paths of a table stay right. Several
processes may share the folder: what a running process uses is not removed.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from glomerulab.errors import StorageError
from glomerulab.runtime.files import (
    PARTIAL_INFIX,
    atomic_write,
    exclusive_lock,
    make_folder,
    private_opener,
    read_json,
)

__all__ = [
    "begin_output",
    "cache_folder",
    "finish_output",
    "is_url",
    "local_copies",
    "local_copy",
    "local_path",
    "release_copies",
    "staged",
    "url_of",
]

CACHE = "GLOMERULAB_CACHE"
CACHE_GIB = "GLOMERULAB_CACHE_GIB"
DEFAULT_GIB = 50.0
URL = re.compile(r"s3:/{1,2}(?=[^/])")
"""Also as `Path` writes it, with one slash."""
N_AT_ONCE = 32
MRXS = ".mrxs"
"""Slides whose tiles are in a folder beside the file, called as it."""
NOT_UPLOADED = re.compile(rf"{re.escape(PARTIAL_INFIX)}|\.lock$")
WAY_OUT = "check the URL, the credentials and the address (AWS_ENDPOINT_URL) of the storage"


@dataclass(frozen=True, slots=True)
class _Index:
    """What is in the cache folder."""

    copies: dict[str, list[Any]]
    """Key to size, version and last use; the version is empty until the object is complete."""
    outputs: dict[str, dict[str, str]]
    """Key of what is being written, to the keys and versions that the storage had of it."""


_lease: IO[str] | None = None
"""Names the objects that this process uses; locked as long as it lives."""


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    """Bucket and key."""
    size: int
    version: str


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether a path is the URL of an object or a folder in S3."""
    return URL.match(str(text)) is not None


def cache_folder() -> Path:
    """Return the cache folder: ``GLOMERULAB_CACHE``, or one of the user's caches."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(user) / "glomerulab").absolute()


def local_path(url: str | os.PathLike[str]) -> Path:
    """Return the place of an object in the cache, whether it is there or not."""
    return cache_folder() / "s3" / _key(url)


def url_of(path: Path) -> str | None:
    """Return the URL of a place in the cache; None for a path elsewhere."""
    place = Path(os.path.normpath(path))
    root = cache_folder() / "s3"
    return f"s3://{place.relative_to(root).as_posix()}" if place.is_relative_to(root) else None


def local_copy(url: str | os.PathLike[str]) -> Path:
    """Download an object, or all objects below a folder, unless they are in the cache.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/slides/a.svs`` or ``s3://bucket/slides``.

    Returns
    -------
    Path
        A file or a folder, which stays until this process ends or calls `release_copies`.

    Raises
    ------
    StorageError
        If there is no such object, it cannot be read, or the cache is too small for it.
    """
    found = _objects_of(url)
    if not found:
        raise StorageError(f"there is no such object or folder; {WAY_OUT}", where=_shown(url))
    _hold(found, {_key(url)})
    return local_path(url)


def local_copies(urls: Collection[str]) -> None:
    """Download objects or folders as `local_copy`, leaving out those that do not exist."""
    wanted = {_key(url) for url in urls}
    folders = {key.rpartition("/")[0] for key in wanted}
    listed = [one for folder in sorted(folders) for one in _objects(folder, depth=1)]
    found = {one.key: one for one in listed if one.key in wanted}
    for key in sorted(wanted):
        if key not in found or key.lower().endswith(MRXS):
            found |= {one.key: one for one in _objects_of(f"s3://{key}")}
    _hold(list(found.values()), wanted)


@contextmanager
def staged(paths: Collection[Path]) -> Iterator[None]:
    """Download the objects that have these places in the cache, and hold them within the block.

    Paths elsewhere are left alone, and objects that do not exist are left out. After the block the
    copies may make room for others.

    Raises
    ------
    StorageError
        If an object cannot be read, or the cache is too small for them.
    """
    urls = [url for url in map(url_of, paths) if url is not None]
    if not urls:
        yield
        return
    found = {one.key: one for url in urls for one in _objects_of(url)}
    with _index():
        lease = _new_lease(cache_folder())
    try:
        _hold(list(found.values()), {_key(url) for url in urls}, lease)
        yield
    finally:
        with _index():
            _end_lease(lease)


def release_copies() -> None:
    """Let the copies that this process used make room for others, as its end would."""
    global _lease  # noqa: PLW0603 - see _use
    if _lease is None:
        return
    with _index():
        _end_lease(_lease)
        _lease = None


def begin_output(url: str | os.PathLike[str]) -> Path:
    """Return the local place of a file or a folder to write, with what the storage has of a folder.

    What an interrupted run has left in a folder stays, so that the same command continues.

    Raises
    ------
    StorageError
        If the folder has changed in the storage since the interrupted run began.
    """
    key, place = _key(url), local_path(url)
    make_folder(place.parent)
    before = {one.key: one.version for one in _objects(url) if one.key != key}
    with _index() as index:
        left = index.outputs.get(key)
    if left is not None and left != before:
        raise StorageError(
            f"the folder has changed since a run that did not end; delete {place} to begin anew",
            where=_shown(url),
        )
    if left is None and before:
        local_copy(url)
    with _index() as index:
        index.outputs[key] = before
        for one in before:  # from now on no copies, which could be removed
            index.copies.pop(one, None)
        index.copies.pop(key, None)
    return place


def finish_output(url: str | os.PathLike[str]) -> int:
    """Upload what was written at `begin_output`'s place, and return the number of objects.

    Objects whose file was removed are deleted.

    Raises
    ------
    StorageError
        If an object does not arrive whole; the local files stay.
    """
    place, root, key = local_path(url), cache_folder() / "s3", _key(url)
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    files = sorted(path for path in files if not NOT_UPLOADED.search(path.name))
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    with _index() as index:
        gone = sorted(set(index.outputs.get(key, {})) - set(sizes))
    system = _system()
    with _errors_of(url):
        for batch in _batches(list(sizes)):
            system.put([str(root / one) for one in batch], list(batch))
        if gone:
            system.rm(gone)
    arrived = {one.key: one.size for one in _objects(url)}
    wrong = next((one for one, size in sizes.items() if arrived.get(one) != size), None)
    if wrong is not None:
        raise StorageError(
            f"the upload is incomplete; run the same command again, or copy {place}",
            where=f"s3://{wrong}",
        )
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    _remove_empty_folders(place.parent)
    with _index() as index:
        index.outputs.pop(key, None)
    return len(sizes)


def _key(url: str | os.PathLike[str]) -> str:
    """Return bucket and key of a URL, without a slash at the end."""
    key = URL.sub("", str(url), count=1).rstrip("/")
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise StorageError("a part of the URL is empty or only dots; correct it", where=str(url))
    return key


def _shown(url: str | os.PathLike[str]) -> str:
    return URL.sub("s3://", str(url), count=1)


def _system() -> Any:  # noqa: ANN401 - fsspec has no types
    try:
        import fsspec
        import s3fs  # noqa: F401 - fsspec names the class, and not the package that is missing
    except ImportError as error:
        raise StorageError(
            "reading and writing s3:// needs the package s3fs; install glomerulab[s3]"
        ) from error
    return fsspec.filesystem("s3", use_listings_cache=False)


@contextmanager
def _errors_of(url: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of the storage into sentences."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise StorageError(
            f"the storage does not answer as it should ({error}); {WAY_OUT}", where=_shown(url)
        ) from error


def _objects(url: str | os.PathLike[str], *, depth: int | None = None) -> list[_Object]:
    """List an object, or those below a folder; none if there is no such thing."""
    system, key = _system(), _key(url)
    with _errors_of(url):
        try:
            found = system.find(key, maxdepth=depth, detail=True)
        except FileNotFoundError:
            return []
    listed = [
        _Object(name, int(one["size"]), str(one.get("ETag") or one.get("LastModified")))
        for name, one in found.items()
        if one["type"] == "file" and not name.endswith("/")
    ]
    for one in listed:
        _key(one.key)  # refuses names that no file can have
    return listed


def _objects_of(url: str | os.PathLike[str]) -> list[_Object]:
    """List an object or those below a folder; of an MRXS slide also its folder of tiles."""
    found = _objects(url)
    if str(url).lower().endswith(MRXS):
        found += _objects(str(url)[: -len(MRXS)])
    return found


def _hold(found: Sequence[_Object], wanted: Collection[str], lease: IO[str] | None = None) -> None:
    """Bring objects into the cache, where they stay as long as a lease, or this process, lives.

    Copies of wanted objects, or of those in wanted folders, that do not exist any more are removed.
    """
    root, now = cache_folder(), time.time()
    with _index() as index:
        copies, others = index.copies, _in_use(root)
        missing = [one for one in found if not _is_here(root, copies.get(one.key), one)]
        busy = next(
            (one for one in missing if one.key in others and copies.get(one.key, [0, ""])[1]), None
        )
        if busy is not None:
            raise StorageError(
                "the object has changed while another process uses the copy of before; wait until "
                "it has ended",
                where=f"s3://{busy.key}",
            )
        kept = others | {one.key for one in found}
        for key in [one for one in copies if one not in kept and _is_in(one, wanted)]:
            _remove(root, copies, key)
        for one in missing:
            copies.pop(one.key, None)
        _use(lease or _process_lease(root), [one.key for one in found])
        _make_room(root, copies, sum(one.size for one in missing), kept | _own_keys())
        copies |= {one.key: [one.size, "", now] for one in missing}
        for one in found:
            copies[one.key][2] = now
    complete: list[_Object] = []
    try:
        for batch in _batches(missing):
            _download(root, batch)
            complete += batch
    finally:
        with _index() as index:
            index.copies.update({one.key: [one.size, one.version, now] for one in complete})


def _download(root: Path, batch: Sequence[_Object]) -> None:
    incoming = make_folder(root / "incoming")
    places = [incoming / secrets.token_hex(8) for _ in batch]
    try:
        with _errors_of(f"s3://{batch[0].key}"):
            _system().get([one.key for one in batch], [str(place) for place in places])
        for one, place in zip(batch, places, strict=True):
            if place.stat().st_size != one.size:
                raise StorageError(
                    "the object changed while it was read; run again", where=f"s3://{one.key}"
                )
            target = root / "s3" / one.key
            make_folder(target.parent)
            place.replace(target)
    finally:
        for place in places:
            place.unlink(missing_ok=True)


def _is_here(root: Path, entry: list[Any] | None, one: _Object) -> bool:
    path = root / "s3" / one.key
    return (
        entry is not None
        and entry[1] == one.version
        and path.is_file()
        and path.stat().st_size == one.size
    )


def _make_room(
    root: Path, copies: dict[str, list[Any]], n_bytes: int, kept: Collection[str]
) -> None:
    """Remove the copies that were not used for longest, until as many bytes are free."""
    limit = float(os.environ.get(CACHE_GIB) or DEFAULT_GIB) * 2**30
    free = limit - sum(entry[0] for entry in copies.values())
    for key in sorted((key for key in copies if key not in kept), key=lambda key: copies[key][2]):
        if free >= n_bytes:
            break
        free += _remove(root, copies, key)
    if free < n_bytes:
        raise StorageError(
            f"the cache has no room for {n_bytes / 2**30:.3g} GiB beside what running programs "
            f"use: {CACHE_GIB} allows {limit / 2**30:.3g} GiB; raise it, or work in parts",
            where=str(root),
        )


def _remove(root: Path, copies: dict[str, list[Any]], key: str) -> int:
    """Remove a copy and return its bytes."""
    (root / "s3" / key).unlink(missing_ok=True)
    _remove_empty_folders((root / "s3" / key).parent)
    return int(copies.pop(key)[0])


@contextmanager
def _index() -> Iterator[_Index]:
    """Yield what is in the cache folder, locked, and write it back."""
    root = make_folder(cache_folder())
    path = root / "index.json"
    with exclusive_lock(root / "index.lock"):
        known = read_json(path, "index of the cache", error=StorageError) if path.exists() else {}
        index = _Index(known.get("copies", {}), known.get("outputs", {}))
        yield index
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(index)), encoding="utf-8")


def _is_in(key: str, wanted: Collection[str]) -> bool:
    """Whether an object is wanted, by itself or with its folder."""
    parts = key.split("/")
    return any("/".join(parts[:n]) in wanted for n in range(1, len(parts) + 1))


def _new_lease(root: Path) -> IO[str]:
    """Return a locked file for the keys of objects in use; the lock ends with the process."""
    name = make_folder(root / "in_use") / f"{os.getpid()}-{secrets.token_hex(4)}"
    lease = open(name, "a", encoding="utf-8", opener=private_opener)  # noqa: SIM115
    fcntl.flock(lease, fcntl.LOCK_EX)
    return lease


def _process_lease(root: Path) -> IO[str]:
    global _lease  # noqa: PLW0603 - the lock ends with the process
    if _lease is None or not Path(_lease.name).is_relative_to(root / "in_use"):
        _lease = _new_lease(root)
    return _lease


def _end_lease(lease: IO[str]) -> None:
    Path(lease.name).unlink(missing_ok=True)
    lease.close()


def _use(lease: IO[str], keys: Sequence[str]) -> None:
    """Note that objects are in use."""
    lease.writelines(f"{json.dumps(key)}\n" for key in keys)
    lease.flush()


def _own_keys() -> set[str]:
    return _keys_in(Path(_lease.name)) if _lease is not None else set()


def _in_use(root: Path) -> set[str]:
    """Return the objects that other running processes use; forget those of ended ones."""
    used: set[str] = set()
    own = None if _lease is None else Path(_lease.name)
    for path in sorted((root / "in_use").glob("*")):
        if path == own:
            continue
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                used |= _keys_in(path)
            else:
                path.unlink()
    return used


def _keys_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {str(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()}


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + N_AT_ONCE] for start in range(0, len(items), N_AT_ONCE))


def _remove_empty_folders(folder: Path) -> None:
    """Remove a folder, those in it and those around it, as far as they are empty."""
    root = cache_folder() / "s3"
    inside = sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []
    for one in (*(path for path in inside if path.is_dir()), folder, *folder.parents):
        if not one.is_relative_to(root) or one == root:
            break
        if one.is_dir() and not any(one.iterdir()):
            one.rmdir()
