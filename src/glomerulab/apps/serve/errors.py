"""Errors that are no fault of the data: the server is busy, or a job is not where it must be."""

from glomerulab.errors import GlomerulabError

__all__ = ["BusyError", "JobStateError", "NoKeyError"]


class NoKeyError(GlomerulabError):
    """The request brought no API key, or one that is nobody's."""


class JobStateError(GlomerulabError):
    """The job is not in a state in which this can be done."""


class BusyError(GlomerulabError):
    """There is too much to do.

    Parameters
    ----------
    status : int
        429 if it is this client's own doing, else 503.
    wait_s : int
        Seconds until it may be worth asking again.
    """

    def __init__(self, message: str, *, status: int, wait_s: int) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s
