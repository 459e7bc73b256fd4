"""A review of predictions: changes as a page sends them, and the real command in a process."""

import re
from pathlib import Path

from tests.support.server_process import ServerProcess

__all__ = ["ReviewProcess", "change"]


def change(**parts: object) -> dict[str, object]:
    """A change as the page sends it."""
    return {
        "time": "2020-11-25T10:00:00+00:00",
        "by": "Dr Li",
        "image_id": "x",
        "labels": "cgn",
        "reason": 'cells, "many"',
        "place": "",
        "seen": 0,
        **parts,
    }


class ReviewProcess(ServerProcess):
    """``glomerulab review`` on a free port."""

    def __init__(self, predictions: Path, *options: str) -> None:
        self.address = ""
        log = predictions.parent / "review.log"
        super().__init__("review", predictions, "--port", 0, *options, log=log)

    def is_ready(self) -> bool:
        """Whether it has printed its address."""
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", self.output())
        if found:
            self.address = found[0]
        return found is not None
