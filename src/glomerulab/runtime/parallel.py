"""Apply a function to many items on several processes, with errors returned as values.

A batch does not stop at its first bad item: a `GlomerulabError` is returned with its item.
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import Generic, TypeVar

from glomerulab.errors import GlomerulabError, OutputError

__all__ = ["Outcome", "end_with_parent", "map_outcomes"]

Item = TypeVar("Item")
Value = TypeVar("Value")

N_AHEAD_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """The value of one item, or its error."""

    item: Item
    value: Value | None
    error: GlomerulabError | None


def map_outcomes(
    function: Callable[[Item], Value], items: Sequence[Item], *, n_workers: int = 1
) -> Generator[Outcome[Item, Value], None, None]:
    """Apply a function to every item, and yield the results as they come in.

    Parameters
    ----------
    function : callable
        Takes one item. With several workers it must be a module-level function, or a
        `functools.partial` of one.
    items : sequence
        Picklable with several workers.
    n_workers : int, default 1
        Processes. With 1 the items are processed here, in order.

    Yields
    ------
    Outcome
        One per item; in order of completion with several workers.

    Raises
    ------
    OutputError
        If an item could not be written: a full or read-only disk is no fault of the item, and no
        further one could be written.
    GlomerulabError
        If a worker process is killed.

    Notes
    -----
    A caller that may stop early closes the generator (`contextlib.closing`), which ends the
    processes in order.

    Errors other than `GlomerulabError` are bugs and end the batch. Processes are spawned, not
    forked: forking after numba or torch has started threads can hang.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers must be at least 1, got {n_workers}")
    if n_workers == 1 or len(items) < 2:
        for item in items:
            yield _outcome(function, item)
        return
    context = multiprocessing.get_context("spawn")
    waiting = iter(items)
    with ProcessPoolExecutor(
        min(n_workers, len(items)), mp_context=context, initializer=end_with_parent
    ) as pool:
        pending: set[Future[Outcome[Item, Value]]] = set()
        try:
            # A bounded window: a million items must not become a million pending futures.
            for item in islice(waiting, n_workers * N_AHEAD_PER_WORKER):
                pending.add(pool.submit(_outcome, function, item))
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for item in islice(waiting, len(done)):
                    pending.add(pool.submit(_outcome, function, item))
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise GlomerulabError(
                "a worker process was killed, most often because the memory ran out; "
                "run again with fewer workers"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def end_with_parent() -> None:
    """End this worker process when its parent ends, so that it does not outlive a killed run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait_for_end: Callable[[], None]) -> None:
    wait_for_end()
    os._exit(1)


def _outcome(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    try:
        return Outcome(item, function(item), None)
    except OutputError:
        raise
    except GlomerulabError as error:
        return Outcome(item, None, error)
