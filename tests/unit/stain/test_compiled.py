import numpy as np

from glomerulab.stain._compiled import compiled, compiled_reordered


def _total(values: np.ndarray) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_kernels_release_the_lock_and_are_kept_in_the_cache() -> None:
    for decorate in (compiled, compiled_reordered):
        kernel = decorate(_total)
        assert kernel.targetoptions["nogil"]
        assert not kernel.targetoptions.get("parallel", False)
        assert type(kernel._cache).__name__ == "FunctionCache"


def test_reordering_keeps_nan_and_infinity() -> None:
    kernel = compiled_reordered(_total)
    assert np.isnan(kernel(np.array([1.0, np.nan])))
    assert np.isinf(kernel(np.array([1.0, np.inf])))
