import sys
from collections.abc import Iterator

import pytest

from glomerulab.runtime import progress
from glomerulab.runtime.progress import show_progress, silent


def test_silent_yields_everything_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(silent(range(3), "Counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_progress_is_one_final_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(show_progress(range(3), "Counting")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Counting: 3/3 done in ")
    assert err.count("\n") == 1


def test_long_work_without_a_terminal_shows_lines_on_the_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(show_progress(iter(range(2)), "Counting", 2))
    assert capsys.readouterr().err.splitlines()[0].startswith("Counting: 1/2 after 0 s")


def test_an_unknown_total_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    list(show_progress(iter(range(2)), "Counting"))
    assert capsys.readouterr().err.startswith("Counting: 2 done")


def test_on_a_terminal_a_bar_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(show_progress(range(4), "Counting")) == [0, 1, 2, 3]
    assert "Counting" in capsys.readouterr().err


def test_items_are_taken_one_at_a_time() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    first = next(iter(show_progress(items(), "Counting")))
    assert (first, taken) == (0, [0])
