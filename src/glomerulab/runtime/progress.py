"""How long work shows how far it is: a bar on a terminal, plain lines elsewhere.

Library functions take a ``track`` argument that wraps what they iterate over and stays silent by
default; only the command line passes `shown`.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Protocol, TypeVar

__all__ = ["Description", "Track", "shown", "silent"]

Item = TypeVar("Item")

Description = str | Callable[[], str]
"""What is being done; as a function, it is asked again whenever it is shown."""

SECONDS_BETWEEN_LINES = 10.0


class Track(Protocol):
    """Anything that passes items through and tells how many went by."""

    def __call__(
        self, items: Iterable[Item], description: Description, total: int | None = None
    ) -> Iterator[Item]:
        """Yield every item of `items` unchanged."""
        ...


def silent(
    items: Iterable[Item], description: Description, total: int | None = None
) -> Iterator[Item]:
    """Pass the items through and show nothing.

    Parameters
    ----------
    items : iterable
        Passed through, in order.
    description : str or callable
        Not shown.
    total : int, optional
        Not used.

    Yields
    ------
    object
        Each item.
    """
    del description, total
    yield from items


def shown(
    items: Iterable[Item], description: Description, total: int | None = None
) -> Iterator[Item]:
    """Pass the items through and show progress on standard error.

    Parameters
    ----------
    items : iterable
        Passed through, in order.
    description : str or callable
        What is being done, such as ``"Extracting crops"``; see `Description`.
    total : int, optional
        How many items there are; taken from ``len(items)`` where it has one.

    Yields
    ------
    object
        Each item.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    follow = _bar if sys.stderr.isatty() else _lines
    yield from follow(items, description, total)


def _bar(items: Iterable[Item], description: Description, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(_said(description), total=total)
        for item in items:
            yield item
            progress.update(task, advance=1, description=_said(description))


def _lines(items: Iterable[Item], description: Description, total: int | None) -> Iterator[Item]:
    start = last = time.monotonic()
    of_total = "" if total is None else f"/{total}"
    n_done = 0
    for n_done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            sys.stderr.write(
                f"{_said(description)}: {n_done}{of_total} after {now - start:.0f} s"
                f"{_time_left(now - start, n_done, total)}\n"
            )
    elapsed = time.monotonic() - start
    sys.stderr.write(f"{_said(description)}: {n_done}{of_total} done in {elapsed:.1f} s\n")


def _said(description: Description) -> str:
    return description if isinstance(description, str) else description()


def _time_left(elapsed: float, n_done: int, total: int | None) -> str:
    """Guess from what was done so far."""
    if total is None or n_done >= total:
        return ""
    seconds = elapsed / n_done * (total - n_done)
    return (
        f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
    )
