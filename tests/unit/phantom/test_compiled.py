import numpy as np

from glomerulab.phantom.compiled import compiled
from glomerulab.phantom.sites import far_apart


def test_compiled_code_gives_what_its_source_gives(rng):
    source = far_apart.py_func
    xs, ys, radii = rng.uniform(0, 30, 60), rng.uniform(0, 30, 60), rng.uniform(1, 4, 60)
    assert np.array_equal(far_apart(xs, ys, radii, 8.0), source(xs, ys, radii, 8.0))


def test_division_by_zero_is_infinite_as_in_numpy():
    @compiled
    def ratio(first: float, second: float) -> float:
        return first / second

    assert np.isinf(ratio(1.0, 0.0))
