import multiprocessing
import os
import signal
import weakref
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from glomerulab.errors import GlomerulabError, MissingMppError, OutputError, SlideError
from glomerulab.runtime.parallel import map_outcomes


def _half(number: int) -> int:
    if number % 2:
        raise MissingMppError("is odd", where=f"item {number}")
    return number // 2


def _divide(number: int, by: int) -> float:
    return number / by


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_item_has_one_outcome_and_errors_are_values(n_workers: int) -> None:
    outcomes = sorted(map_outcomes(_half, range(20), n_workers=n_workers), key=lambda o: o.item)
    assert [outcome.item for outcome in outcomes] == list(range(20))
    assert [outcome.value for outcome in outcomes[::2]] == list(range(10))
    for outcome in outcomes[1::2]:
        assert outcome.value is None
        assert isinstance(outcome.error, SlideError)
        assert str(outcome.error) == f"item {outcome.item}: is odd"


def test_the_error_of_an_item_keeps_nothing_of_it_in_memory() -> None:
    held = []

    class Large:
        pass

    def fail(number: int) -> int:
        large = Large()
        held.append(weakref.ref(large))
        try:
            return number // 0
        except ZeroDivisionError as error:
            raise SlideError("is zero") from error

    for outcome in map_outcomes(fail, [1, 2]):
        assert isinstance(outcome.error, SlideError)
        assert held[-1]() is None


def _write(number: int) -> int:
    if number == 3:
        raise OutputError("the disk is full", where="out")
    return number


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_item_that_cannot_be_written_ends_the_batch(n_workers: int) -> None:
    with (
        closing(map_outcomes(_write, range(20), n_workers=n_workers)) as outcomes,
        pytest.raises(OutputError, match="disk is full") as caught,
    ):
        list(outcomes)
    assert caught.value.where == "out"


def test_one_worker_keeps_the_order_and_is_lazy() -> None:
    done: list[int] = []
    outcomes = map_outcomes(done.append, [3, 1, 2])
    assert done == []
    next(iter(outcomes))
    assert done == [3]
    assert [outcome.item for outcome in outcomes] == [1, 2]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_another_error_ends_the_batch(n_workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_outcomes(partial(_divide, by=0), [1, 2], n_workers=n_workers))


def test_no_items_give_no_outcomes() -> None:
    assert list(map_outcomes(_half, [], n_workers=3)) == []


def test_zero_workers_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="n_workers must be at least 1, got 0"):
        list(map_outcomes(_half, [1], n_workers=0))


def test_the_errors_of_a_batch_share_one_base() -> None:
    (outcome,) = map_outcomes(_half, [1])
    assert isinstance(outcome.error, GlomerulabError)


def test_closing_early_ends_the_processes_before_it_returns():
    with closing(map_outcomes(abs, range(-200, 0), n_workers=2)) as outcomes:
        assert next(outcomes).value is not None
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []


def _die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_only_the_item_that_kills_its_worker_fails() -> None:
    found = {one.item: one for one in map_outcomes(_die_at_three, range(40), n_workers=2)}
    assert sorted(found) == list(range(40))
    assert [item for item, one in found.items() if one.error is not None] == [3]
    assert "killed 3 times" in str(found[3].error)


def _die_once(folder: Path, number: int) -> int:
    mark = folder / "died"
    if number == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_an_item_whose_worker_was_killed_once_is_done_again(tmp_path: Path) -> None:
    outcomes = list(map_outcomes(partial(_die_once, tmp_path), range(12), n_workers=2))
    assert sorted(one.value for one in outcomes) == list(range(12))
