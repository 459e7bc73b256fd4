"""The program as a shell would run it, for tests."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Done", "Run"]


@dataclass
class Done:
    """What a run left."""

    returncode: int
    stdout: str
    stderr: str


class Run(Protocol):
    """Runs the program with the arguments of a command line."""

    def __call__(self, *arguments: object) -> Done: ...
