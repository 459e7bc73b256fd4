"""Parts of messages: counted nouns, and the problems that pydantic finds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError  # only its type: pydantic would slow `--help`

__all__ = [
    "count_noun",
    "first_problem",
]

MAX_VALUE_LENGTH = 80


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun; the plural is the singular with an s unless given.

    Examples
    --------
    >>> count_noun(1, "image"), count_noun(0, "glomerulus", "glomeruli")
    ('1 image', '0 glomeruli')
    """
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def first_problem(error: "ValidationError") -> str:
    """Return the first problem of a file in one line, with its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    problem = first["msg"].removeprefix("Value error, ")
    value = repr(first["input"])
    # A missing key and a rule over several keys have the whole table as their input.
    if isinstance(first["input"], Mapping) or len(value) > MAX_VALUE_LENGTH:
        return f"{key or 'the file'}: {problem}"
    return f"{key or 'the file'}: {problem}, got {value}"
