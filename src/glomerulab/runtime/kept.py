"""What a worker process loads once and keeps between its items, such as a model."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from glomerulab.runtime.files import size_and_mtime

__all__ = ["kept"]

Value = TypeVar("Value")

N_KEPT = 4


def kept(load: Callable[..., Value], *arguments: object) -> Value:
    """Return what `load` makes of the arguments: loaded once, and again when a file changed.

    The worker of a standing cluster outlives a run, and would otherwise apply the model that its
    folder held before.

    Parameters
    ----------
    load : callable
        A module-level function.
    arguments : hashable
        Files and folders as `Path`, so that their content counts.
    """
    versions = tuple(_version(one) for one in arguments if isinstance(one, Path))
    value: Value = _loaded(load, arguments, versions)
    return value


@lru_cache(maxsize=N_KEPT)
def _loaded(load: Callable[..., Any], arguments: tuple[object, ...], versions: object) -> Any:  # noqa: ANN401 - as `load`
    del versions
    return load(*arguments)


def _version(path: Path) -> tuple[object, ...]:
    if not path.is_dir():
        return size_and_mtime(path)
    return tuple(
        (str(one), *size_and_mtime(one)) for one in sorted(path.rglob("*")) if one.is_file()
    )
