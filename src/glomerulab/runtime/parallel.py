"""One function over many items on several processes, with every failure kept as a value.

A batch never stops at its first bad item: what an item raises of `GlomerulabError` comes back
beside the item, and the caller decides.
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

from glomerulab.errors import GlomerulabError

__all__ = ["Outcome", "end_with_parent", "map_outcomes"]

Item = TypeVar("Item")
Value = TypeVar("Value")

N_AHEAD_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the error that stood in its way."""

    item: Item
    value: Value | None
    error: GlomerulabError | None


def map_outcomes(
    function: Callable[[Item], Value], items: Sequence[Item], *, n_workers: int = 1
) -> Generator[Outcome[Item, Value], None, None]:
    """Apply a function to every item, as results come in.

    Parameters
    ----------
    function : callable
        Takes one item. A module-level function or a `functools.partial` of one, so that another
        process can find it.
    items : sequence
        Each must be picklable when `n_workers` > 1.
    n_workers : int, default 1
        Processes. With 1 the work is done here, in order, without starting any.

    Yields
    ------
    Outcome
        One per item; in order of completion when `n_workers` > 1.

    Raises
    ------
    GlomerulabError
        If a process is killed from outside.
    ValueError
        If `n_workers` is below 1.

    Notes
    -----
    Whoever stops before the end closes the generator (`contextlib.closing`): that ends the
    processes; left to the end of the program, they would end in disorder.

    Errors other than `GlomerulabError` are faults of the program and end the batch. New processes
    are spawned, not forked: forking after numba or torch has started threads can hang.
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
                "a worker process was ended from outside, most often because the memory ran out; "
                "run again with fewer --workers"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def end_with_parent() -> None:
    """End this process when the one that started it ends: else a killed run's would go on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait_for_end: Callable[[], None]) -> None:
    wait_for_end()
    os._exit(1)


def _outcome(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    try:
        return Outcome(item, function(item), None)
    except GlomerulabError as error:
        return Outcome(item, None, error)
