"""Run long work in a process of its own, so that its computing does not hold up other requests."""

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from glomerulab.errors import GlomerulabError
from glomerulab.runtime.parallel import end_with_parent
from glomerulab.runtime.progress import Description

Item = TypeVar("Item")
Value = TypeVar("Value")
Report = Callable[[int, int], None]
"""Takes how many items are done, and of how many."""

SECONDS_BETWEEN_REPORTS = 0.2


class ReportTrack:
    """A `Track` that reports at intervals."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(
        self, items: Iterable[Item], description: Description, total: int | None = None
    ) -> Iterator[Item]:
        """Yield every item."""
        del description
        last = -SECONDS_BETWEEN_REPORTS
        for n_done, item in enumerate(items):
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_REPORTS:
                last = now
                self._report(n_done, total or 0)
            yield item


def run_apart(
    function: Callable[..., Value], *arguments: object, report: Report, **named: object
) -> Value:
    """Call a function in a new process, and return what it returns.

    Parameters
    ----------
    function : callable
        Of a module; takes ``track``. What it takes, returns and raises can be pickled.
    report : callable
        Receives the progress.

    Raises
    ------
    GlomerulabError
        As the function raises it, or if its process is killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(sender, function, arguments, named), daemon=True, name="glomerulab work"
    )
    process.start()
    sender.close()
    try:
        with receiver:
            while True:
                kind, content = receiver.recv()
                if kind == "progress":
                    report(*content)
                elif kind == "error":
                    raise content
                else:
                    value: Value = content
                    return value
    except EOFError as error:
        raise GlomerulabError(
            "the work was ended from outside, most often because the memory ran out; try again"
        ) from error
    finally:
        process.join()


def _work(
    sender: Connection,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    named: dict[str, Any],
) -> None:
    end_with_parent()
    gc.disable()  # of a large file's objects it takes long, also while the database is locked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the server ends in order
    track = ReportTrack(lambda n_done, n_items: sender.send(("progress", (n_done, n_items))))
    try:
        answer = ("value", function(*arguments, track=track, **named))
    except GlomerulabError as error:
        answer = ("error", error)
    sender.send(answer)
