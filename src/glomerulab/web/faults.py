"""What is wrong with a request, in words."""

from fastapi.exceptions import RequestValidationError

__all__ = ["problems_of"]

MAX_PROBLEMS = 5


def problems_of(error: RequestValidationError) -> str:
    """Say in one line what does not fit.

    Parameters
    ----------
    error : RequestValidationError

    Returns
    -------
    str
        The first few problems by place. What was sent is not repeated: it may be no JSON (NaN) or
        another's script.
    """
    problems = [
        f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()
    ]
    return "; ".join(problems[:MAX_PROBLEMS])
