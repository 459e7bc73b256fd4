import time

import numpy as np
import pytest

from glomerulab.inference.read_ahead import read_ahead


class Slow:
    """A source of which a part takes a while, and which must not be closed meanwhile."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __copy__(self) -> "Slow":
        return self

    def close(self) -> None:
        self.events.append("close")


def read_slowly(source: Slow, _place: tuple[int, int]) -> np.ndarray:
    source.events.append("begin")
    time.sleep(0.1)
    source.events.append("end")
    return np.zeros((1, 1, 3), np.uint8)


def test_a_source_is_closed_when_nothing_reads_it_any_more() -> None:
    source = Slow()
    tiles = read_ahead(source, read_slowly, [(0, column) for column in range(9)])
    next(tiles)
    time.sleep(0.05)  # the next tile is being read
    with pytest.raises(RuntimeError, match="stop"):
        tiles.throw(RuntimeError("stop"))
    assert source.events.count("begin") == source.events.count("end") < 9
    assert source.events[-1] == "close"
