"""How the kernels of this package are compiled, in one place.

On one thread and without the interpreter's lock, so that images run side by side in threads;
numba's own parallel loops stall when other programs use the processor. Compiled once, then kept
in numba's cache.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

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

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Real = float | np.floating


def compiled(kernel: Kernel) -> Kernel:
    """Compile with IEEE arithmetic as written.

    Parameters
    ----------
    kernel : callable

    Returns
    -------
    callable
    """
    return cast("Kernel", numba.njit(cache=True, nogil=True, error_model="numpy")(kernel))


def compiled_reordered(kernel: Kernel) -> Kernel:
    """Compile so that sums may be reordered and fused, which lets the processor do eight at once.

    NaN, infinity and division keep their meaning.

    Parameters
    ----------
    kernel : callable

    Returns
    -------
    callable
    """
    allowed = {"reassoc", "contract", "nsz"}
    decorate = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=allowed)
    return cast("Kernel", decorate(kernel))
