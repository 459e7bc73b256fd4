"""Apply a function to many items on several processes, with errors returned as values.

A batch does not stop at its first bad item: a `GlomerulabError` is returned with its item. An item
that ends its process, as the kernel does when memory runs out, is tried alone before it fails.
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import Generic, Protocol, TypeVar

from glomerulab.errors import ConfigError, GlomerulabError, OutputError
from glomerulab.runtime.files import disk_error
from glomerulab.runtime.threads import n_processors

__all__ = [
    "N_ATTEMPTS",
    "Outcome",
    "Workers",
    "end_with_parent",
    "map_outcomes",
    "parse_part",
    "part_slice",
]

Item = TypeVar("Item")
Value = TypeVar("Value")

N_AHEAD_PER_WORKER = 4
N_ATTEMPTS = 3
"""How often an item may end its process before it fails."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """The value of one item, or its error."""

    item: Item
    value: Value | None
    error: GlomerulabError | None


class Workers(Protocol):
    """Processes elsewhere that take items, such as those of a cluster."""

    def outcomes(
        self, function: Callable[[Item], Value], items: Sequence[Item]
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcome of every item, as `map_outcomes`."""
        ...


def map_outcomes(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    n_workers: int = 1,
    workers: Workers | None = None,
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
        Processes of this machine. With 1 the items are processed here, in order.
    workers : Workers, optional
        Used instead of processes of this machine. Items and values pass through its scheduler, so
        they hold paths and small results, never pixels.

    Yields
    ------
    Outcome
        One per item; in order of completion with several workers. An item that ended its process
        `N_ATTEMPTS` times has an error.

    Raises
    ------
    OutputError
        If an item could not be written: a full or read-only disk is no fault of the item, and no
        further one could be written.

    Notes
    -----
    A caller that may stop early closes the generator (`contextlib.closing`), which ends the
    processes in order.

    Errors other than `GlomerulabError` are bugs and end the batch. Processes are spawned, not
    forked: forking after numba or torch has started threads can hang.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers must be at least 1, got {n_workers}")
    if workers is not None:
        with closing(workers.outcomes(function, items)) as outcomes:
            yield from outcomes
    elif n_workers == 1 or len(items) < 2:
        for item in items:
            yield outcome_of(function, item)
    else:
        yield from _on_processes(function, items, n_workers)


def parse_part(text: str) -> tuple[int, int]:
    """Read the number of a part and how many there are, such as ``7/100``.

    Raises
    ------
    ConfigError
        If it is no part.
    """
    number, slash, total = text.partition("/")
    if slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
        return int(number), int(total)
    raise ConfigError(f"--part must be a number of a number, such as 7/100, got {text!r}")


def part_slice(part: tuple[int, int], n: int) -> slice:
    """Return which of n items are of a part; the parts follow each other and hold each once."""
    number, total = part
    if not 1 <= number <= total:
        raise ConfigError(f"part {number} of {total} does not exist; give 1 to {total}")
    return slice((number - 1) * n // total, number * n // total)


def _on_processes(
    function: Callable[[Item], Value], items: Sequence[Item], n_workers: int
) -> Generator[Outcome[Item, Value], None, None]:
    """Map on a pool; after a process was killed, the items in flight are tried one by one."""
    waiting = iter(items)
    while True:
        unfinished: dict[Future[Outcome[Item, Value]], Item] = {}
        with _pool(min(n_workers, len(items))) as pool:
            yield from _until_killed(pool, function, waiting, n_workers, unfinished)
        if not unfinished:
            return
        for future, item in unfinished.items():
            is_done = future.done() and not future.cancelled() and future.exception() is None
            yield future.result() if is_done else _alone(function, item)


def _until_killed(
    pool: ProcessPoolExecutor,
    function: Callable[[Item], Value],
    waiting: Iterator[Item],
    n_workers: int,
    unfinished: dict[Future[Outcome[Item, Value]], Item],
) -> Generator[Outcome[Item, Value], None, None]:
    """Yield outcomes until all are there, or a process of the pool was killed."""

    def submit(n: int) -> None:
        for item in islice(waiting, n):
            try:
                future = pool.submit(outcome_of, function, item)
            except BrokenProcessPool as error:
                future = Future()
                future.set_exception(error)
            unfinished[future] = item

    try:
        # A bounded window: a million items must not become a million pending futures.
        submit(n_workers * N_AHEAD_PER_WORKER)
        while unfinished:
            done, _ = wait(unfinished, return_when=FIRST_COMPLETED)
            if any(isinstance(one.exception(), BrokenProcessPool) for one in done):
                return
            submit(len(done))
            for future in done:
                del unfinished[future]
                yield future.result()
    finally:
        for future in unfinished:
            future.cancel()


def _alone(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """Process an item in a process of its own, so that only it can be what ends the process."""
    for _ in range(N_ATTEMPTS):
        with _pool(1) as pool:
            try:
                return pool.submit(outcome_of, function, item).result()
            except BrokenProcessPool:
                continue
    return Outcome(item, None, killed_error())


def killed_error() -> GlomerulabError:
    """Return the error of an item that ends its process each time."""
    return GlomerulabError(
        f"its worker process was killed {N_ATTEMPTS} times, most often because the memory ran "
        "out; look at this one alone, or run again where there is more memory"
    )


def _pool(n_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    # The processes share the processors: OpenMP, when torch loads it, must not take all in each.
    n_threads = max(n_processors() // n_workers, 1)
    return ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_begin, initargs=(n_threads,)
    )


def _begin(n_threads: int) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
    end_with_parent()


def end_with_parent() -> None:
    """End this worker process when its parent ends, so that it does not outlive a killed run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait_for_end: Callable[[], None]) -> None:
    wait_for_end()
    os._exit(1)


def outcome_of(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """Apply a function to one item; an `OutputError` is raised, also for a full disk."""
    try:
        return Outcome(item, function(item), None)
    except OutputError:
        raise
    except OSError as error:
        full = disk_error(error)
        if full is None:
            raise
        raise full from error
    except GlomerulabError as error:
        # Its frames hold arrays and files, of which a deleted one still takes room on its disk.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        return Outcome(item, None, error)
