import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from glomerulab.apps.annotation.web import login_limits
from glomerulab.apps.annotation.web.login_limits import LoginLimits, TooManyTriesError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _fail(limits: LoginLimits, login: str, address: str, times: int) -> None:
    for _ in range(times):
        with limits.attempt(login, address):
            limits.failed(login, address)


def test_the_sixth_try_has_to_wait_and_then_may_again():
    clock = Clock()
    limits = LoginLimits(clock)
    _fail(limits, "anna", "10.0.0.1", 5)
    with pytest.raises(TooManyTriesError) as caught, limits.attempt("Anna", "10.0.0.1"):
        pass
    assert 290 < caught.value.wait_s <= 301
    clock.now = 301.0
    with limits.attempt("anna", "10.0.0.1"):
        pass


def test_others_are_not_kept_out_by_it():
    limits = LoginLimits(Clock())
    _fail(limits, "anna", "10.0.0.1", 5)
    assert _may_try(limits, "ben", "10.0.0.1")
    assert _may_try(limits, "anna", "10.0.0.2")
    assert not _may_try(limits, "anna", "10.0.0.1")


def test_one_login_tried_from_everywhere_is_limited_too():
    limits = LoginLimits(Clock())
    for number in range(20):
        _fail(limits, "anna", f"10.0.0.{number}", 1)
    with pytest.raises(TooManyTriesError), limits.attempt("anna", "10.0.1.1"):
        pass


def test_one_address_trying_every_login_is_limited_too():
    limits = LoginLimits(Clock())
    for number in range(40):
        _fail(limits, f"user{number}", "10.0.0.1", 1)
    with pytest.raises(TooManyTriesError), limits.attempt("anna", "10.0.0.1"):
        pass


def test_success_forgets_the_own_slips():
    limits = LoginLimits(Clock())
    _fail(limits, "anna", "10.0.0.1", 4)
    limits.succeeded("anna", "10.0.0.1")
    _fail(limits, "anna", "10.0.0.1", 4)
    assert _may_try(limits, "anna", "10.0.0.1")


def _may_try(limits, login, address):
    try:
        with limits.attempt(login, address):
            return True
    except TooManyTriesError:
        return False


def test_very_many_names_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(login_limits, "MAX_KEYS", 30)
    limits = LoginLimits(Clock())
    for number in range(500):
        limits.failed(f"user{number}", f"10.0.{number // 250}.{number % 250}")
    assert len(limits._failures) <= 33


def test_of_many_tries_at_once_no_more_are_looked_at_than_one_after_the_other():
    limits = LoginLimits(Clock())
    looked_at = []

    def attempt(_number: int) -> None:
        with suppress(TooManyTriesError), limits.attempt("anna", "10.0.0.1"):
            looked_at.append(1)
            time.sleep(0.01)
            limits.failed("anna", "10.0.0.1")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(attempt, range(20)))
    assert 5 <= len(looked_at) <= 6  # two are looked at side by side
