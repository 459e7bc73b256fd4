"""Progress of long work: a bar on a terminal, plain lines elsewhere.

Library functions take a ``track`` argument that wraps the items they iterate over, by default
`silent`; the command line passes `show_progress`.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Protocol, TypeVar

__all__ = ["Description", "Track", "show_progress", "silent"]

Item = TypeVar("Item")

Description = str | Callable[[], str]
"""Name of the work, such as ``"Extracting crops"``; a function is called at every update."""

SECONDS_BETWEEN_LINES = 10.0


class Track(Protocol):
    """Yield every item unchanged, and report how many were processed.

    `total` is the number of items; by default it is ``len(items)`` where that is defined.
    """

    def __call__(
        self, items: Iterable[Item], description: Description, total: int | None = None
    ) -> Iterator[Item]:
        """Yield every item of `items` unchanged."""
        ...


def silent(
    items: Iterable[Item], description: Description, total: int | None = None
) -> Iterator[Item]:
    """Yield every item and show nothing."""
    del description, total
    yield from items


def show_progress(
    items: Iterable[Item], description: Description, total: int | None = None
) -> Iterator[Item]:
    """Yield every item and show the progress on standard error."""
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
        task = progress.add_task(_text(description), total=total)
        for item in items:
            yield item
            progress.update(task, advance=1, description=_text(description))


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
                f"{_text(description)}: {n_done}{of_total} after {now - start:.0f} s"
                f"{_time_left(now - start, n_done, total)}\n"
            )
    elapsed = time.monotonic() - start
    sys.stderr.write(f"{_text(description)}: {n_done}{of_total} done in {elapsed:.1f} s\n")


def _text(description: Description) -> str:
    return description if isinstance(description, str) else description()


def _time_left(elapsed: float, n_done: int, total: int | None) -> str:
    if total is None or n_done >= total:
        return ""
    seconds = elapsed / n_done * (total - n_done)
    return (
        f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
    )
