"""One way to compile the renderer's inner loops: cached on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

__all__ = ["compiled"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function with numba, keeping its type for the type checker.

    Parameters
    ----------
    function : callable
        Takes and gives numbers and arrays; module-level, so that the compiled code can be cached.

    Returns
    -------
    callable
        The same function, compiled at its first call.

    Notes
    -----
    No ``fastmath``: it would let the bytes of an image depend on the compiler's mood.
    """
    decorate = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast("Callable[Arguments, Result]", decorate(function))
