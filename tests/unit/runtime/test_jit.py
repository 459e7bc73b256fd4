import logging
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import glomerulab.runtime.jit
from glomerulab.phantom.primitives import far_apart
from glomerulab.runtime.jit import compiled, compiled_reordered


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


def test_compiled_code_gives_what_its_source_gives() -> None:
    rng = np.random.default_rng(0)
    xs, ys, radii = rng.uniform(0, 30, 60), rng.uniform(0, 30, 60), rng.uniform(1, 4, 60)
    source = far_apart.py_func
    assert np.array_equal(far_apart(xs, ys, radii, 8.0), source(xs, ys, radii, 8.0))


def test_division_by_zero_is_infinite_as_in_numpy() -> None:
    @compiled
    def ratio(first: float, second: float) -> float:
        return first / second

    assert np.isinf(ratio(1.0, 0.0))


def test_reordering_keeps_nan_and_infinity() -> None:
    kernel = compiled_reordered(_total)
    assert np.isnan(kernel(np.array([1.0, np.nan])))
    assert np.isinf(kernel(np.array([1.0, np.inf])))


def test_without_a_folder_to_write_to_it_compiles_anew_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # No locator: what numba is left with in a read-only install without a home.
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    glomerulab.runtime.jit._warn_no_cache.cache_clear()
    with caplog.at_level(logging.WARNING):
        kernels = [compiled(_total), compiled_reordered(_total)]
    assert [kernel(np.array([1.0, 2.0])) for kernel in kernels] == [3.0, 3.0]
    assert [record.message for record in caplog.records if "NUMBA_CACHE_DIR" in record.message]
    assert len(caplog.records) == 1


def test_other_faults_of_compilation_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> object:
        raise RuntimeError("another fault")

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="another fault"):
        compiled(_total)


def test_an_empty_cache_folder_is_filled_and_used_again(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from glomerulab.stain.separation import even_sample;"
        "from glomerulab.stain.kernels.pixels import brightest_peak as peak;"
        "peak(np.zeros(256, np.int64), 180, 1.0, 0.1, 1.0);"
        "print(sum(peak.stats.cache_hits.values()))"
    )
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        hits.append(int(done.stdout))
    assert hits == [0, 1]
