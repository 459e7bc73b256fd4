"""Compile loops over pixels with numba, and cache the compiled code.

Compiled functions run on one thread and release the interpreter's lock, so that images can be
processed side by side in threads; numba's own parallel loops stall when other programs use the
processor.
"""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "F32",
    "F64",
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "Flags",
    "Real",
    "compiled",
    "compiled_reordered",
]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Real = float | np.floating

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a module-level function of numbers and arrays at its first call, in IEEE arithmetic.

    Notes
    -----
    The compiled code is cached in ``NUMBA_CACHE_DIR``, beside the source or in the user's cache
    folder, whichever can be written to first. Where none can, every start compiles again and logs a
    warning.
    """
    return _compile(function, fastmath=False)


def compiled_reordered(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile like `compiled`, but let sums be reordered and fused (SIMD).

    NaN, infinity and division keep their meaning.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def _compile(
    function: Callable[Arguments, Result], *, fastmath: bool | set[str]
) -> Callable[Arguments, Result]:
    decorate = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=fastmath)
    try:
        dispatcher = decorate(cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _warn_no_cache()
        dispatcher = decorate()(function)
    return cast("Callable[Arguments, Result]", dispatcher)


@functools.cache  # warn once for all functions
def _warn_no_cache() -> None:
    logger.warning(
        "compiled code cannot be cached, since no cache folder can be written to: every start "
        "compiles again, which takes ten seconds or more; set NUMBA_CACHE_DIR to a writable folder"
    )
