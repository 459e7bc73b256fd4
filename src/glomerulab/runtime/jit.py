"""How loops over pixels are compiled, in one place, and where what was compiled is kept.

On one thread and without the interpreter's lock, so that images run side by side in threads;
numba's own parallel loops stall when other programs use the processor.
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
U32 = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Real = float | np.floating

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function with IEEE arithmetic as written, keeping its type for the type checker.

    Parameters
    ----------
    function : callable
        Takes and gives numbers and arrays; module-level, so that the compiled code can be kept.

    Returns
    -------
    callable
        The same function, compiled at its first call.

    Notes
    -----
    What was compiled is kept in ``NUMBA_CACHE_DIR``, beside the source or in the user's cache
    folder, whichever can be written to first. Where none can, it is compiled at every start, and
    a warning says so.
    """
    return _compile(function, fastmath=False)


def compiled_reordered(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile so that sums may be reordered and fused, which lets the processor do eight at once.

    NaN, infinity and division keep their meaning.

    Parameters
    ----------
    function : callable
        As for `compiled`.

    Returns
    -------
    callable
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
        _warn_of_no_cache()
        dispatcher = decorate()(function)
    return cast("Callable[Arguments, Result]", dispatcher)


@functools.cache  # once is enough: there are dozens of such functions
def _warn_of_no_cache() -> None:
    logger.warning(
        "compiled code cannot be kept, since no cache folder can be written to: every start "
        "compiles anew, which takes ten seconds or more; set NUMBA_CACHE_DIR to a folder that can"
    )
