"""What a normalisation run has done so far, kept line by line beside its images.

A run that is stopped loses at most the image it was writing. It must not know of pixels.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from glomerulab.errors import OutputError
from glomerulab.runtime.files import atomic_write, size_and_mtime
from glomerulab.stain.reference import StainReference

__all__ = ["Progress", "Record", "open_progress"]

SETTINGS_FILE = "normalize.json"
RECORDS_FILE = "normalize.jsonl"


@dataclass(frozen=True)
class Record:
    """What became of one image, and which file it was made from."""

    image_id: str
    status: str
    reason: str
    size: int
    """Of the original in bytes; with `modified` it tells whether the file changed since."""
    modified: int
    """Nanoseconds since 1970."""


@dataclass(frozen=True)
class Progress:
    """Records by image_id, and the file they are appended to."""

    path: Path
    records: dict[str, Record]

    def is_done(self, image_id: str, original: Path, out: Path) -> bool:
        """Say whether an image was made of this very file and is still there.

        Parameters
        ----------
        image_id : str
        original, out : Path
            The file it is made from and the file it goes to.

        Returns
        -------
        bool
        """
        record = self.records.get(image_id)
        if record is None or not out.is_file() or not original.is_file():
            return False
        return (record.size, record.modified) == size_and_mtime(original)

    def add(self, record: Record) -> None:
        """Note one image, on disk at once.

        Parameters
        ----------
        record : Record
            Replaces an earlier one of the same image.
        """
        self.records[record.image_id] = record
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")


def open_progress(
    out: Path,
    targets: Mapping[str, StainReference],
    *,
    per: str,
    white: tuple[float, float, float] | None = None,
) -> Progress:
    """Begin a run in a folder, or continue the one that is there.

    Parameters
    ----------
    out : Path
        Folder of the result.
    targets : mapping of str to StainReference
    per : str
    white : tuple of 3 float, optional
        As given; None where it is estimated.

    Returns
    -------
    Progress

    Raises
    ------
    OutputError
        If the folder holds a run with other targets, another `per` or `white`.
    """
    stains = {stain: asdict(target) for stain, target in sorted(targets.items())}
    described = {"per": per, "white": white, "targets": stains}
    settings = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    settings_path = out / SETTINGS_FILE
    if settings_path.is_file():
        if settings_path.read_text(encoding="utf-8") != settings:
            raise OutputError(
                "holds a run with other targets or parameters; choose another folder or delete it",
                where=str(out),
            )
    else:
        with atomic_write(settings_path) as temporary:
            temporary.write_text(settings, encoding="utf-8")
    records_path = out / RECORDS_FILE
    return Progress(records_path, _read_records(records_path))


def _read_records(path: Path) -> dict[str, Record]:
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole, _, torn = text.rpartition("\n")
    if torn:  # the last line of a run that was killed: begin behind what is whole
        with atomic_write(path) as temporary:
            temporary.write_text(whole + "\n" if whole else "", encoding="utf-8")
    records = [Record(**json.loads(line)) for line in whole.splitlines()]
    return {record.image_id: record for record in records}
