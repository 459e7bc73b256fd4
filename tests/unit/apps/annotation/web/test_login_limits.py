import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from glomerulab.apps.annotation.web.login_limits import LoginLimits, TooManyLoginsError


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock that the limits read."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


def _fail(limits: LoginLimits, login: str, address: str, times: int) -> None:
    for _ in range(times):
        with limits.attempt(login, address):
            limits.record_failure(login, address)


def _may_try(limits: LoginLimits, login: str, address: str) -> bool:
    try:
        with limits.attempt(login, address):
            return True
    except TooManyLoginsError:
        return False


def test_the_sixth_try_has_to_wait_until_the_first_failure_is_five_minutes_old(clock):
    limits = LoginLimits()
    for _ in range(5):
        _fail(limits, "anna", "10.0.0.1", 1)
        clock.now += 10
    with pytest.raises(TooManyLoginsError) as caught, limits.attempt("Anna", "10.0.0.1"):
        pass
    assert caught.value.wait_s == 251
    clock.now += 251
    _fail(limits, "anna", "10.0.0.1", 1)  # one failure has left the window, and one enters it
    with pytest.raises(TooManyLoginsError) as caught, limits.attempt("anna", "10.0.0.1"):
        pass
    assert caught.value.wait_s == 10


def test_other_accounts_are_not_blocked(clock):
    limits = LoginLimits()
    _fail(limits, "anna", "10.0.0.1", 5)
    assert _may_try(limits, "ben", "10.0.0.1")
    assert _may_try(limits, "anna", "10.0.0.2")
    assert not _may_try(limits, "anna", "10.0.0.1")


def test_one_login_tried_from_everywhere_is_limited_too(clock):
    limits = LoginLimits()
    for number in range(20):
        _fail(limits, "anna", f"10.0.0.{number}", 1)
    assert not _may_try(limits, "anna", "10.0.1.1")


def test_one_address_trying_every_login_is_limited_too(clock):
    limits = LoginLimits()
    for number in range(40):
        _fail(limits, f"user{number}", "10.0.0.1", 1)
    assert not _may_try(limits, "anna", "10.0.0.1")


def test_success_forgets_the_failures_of_the_pair_only(clock):
    limits = LoginLimits()
    for _ in range(5):
        _fail(limits, "anna", "10.0.0.1", 4)
        limits.reset("anna", "10.0.0.1")
    assert not _may_try(limits, "anna", "10.0.0.1")  # twenty failures of the login remain
    assert _may_try(limits, "ben", "10.0.0.1")


def test_failures_outside_the_window_are_dropped_from_memory(clock):
    limits = LoginLimits()
    for number in range(300):
        limits.record_failure(f"user{number}", f"10.0.{number // 250}.{number % 250}")
    clock.now += 301
    limits.record_failure("anna", "10.0.0.1")
    limits._limiter.storage.timer.join(5)  # the sweep that a failure starts
    assert sum(map(bool, limits._limiter.storage.events.values())) <= 3


def test_concurrent_tries_are_limited_like_sequential_ones():
    limits = LoginLimits()
    checked = []

    def attempt(_number: int) -> None:
        with suppress(TooManyLoginsError), limits.attempt("anna", "10.0.0.1"):
            checked.append(1)
            time.sleep(0.01)
            limits.record_failure("anna", "10.0.0.1")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(attempt, range(20)))
    assert 5 <= len(checked) <= 6  # two are checked side by side


@pytest.mark.parametrize(
    "spell",
    [
        lambda number: " " * number + "anna",
        lambda number: "anna" + "\u3000" * number,
        lambda number: "\u200b" * number + "anna",
        lambda number: "a" + "\u00ad" * number + "nna",
        lambda number: ("anna", "ANNA", "Anna", "\uff41nna", "\u0000anna")[number % 5],
    ],
)
def test_a_login_spelt_in_other_ways_is_counted_as_one(clock, spell):
    limits = LoginLimits()
    for number in range(5):
        _fail(limits, spell(number), "10.0.0.1", 1)
    assert not _may_try(limits, spell(77), "10.0.0.1")
    assert _may_try(limits, "bo", "10.0.0.1")


def test_an_address_of_the_same_network_or_form_is_counted_as_one(clock):
    limits = LoginLimits()
    for number in range(5):
        _fail(limits, "anna", f"2001:db8::{number:x}:1", 1)
        _fail(limits, "bo", ("192.0.2.7", "::ffff:192.0.2.7")[number % 2], 1)
    assert not _may_try(limits, "anna", "2001:db8::77")
    assert not _may_try(limits, "bo", " 192.0.2.7")
    assert _may_try(limits, "anna", "2001:db8:1::1")
