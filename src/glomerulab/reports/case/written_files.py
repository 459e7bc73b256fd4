"""The record of the reports in a folder, by which those of a corrected patient id are removed.

``reports.json`` names each file, the patient, and the slides and images that it shows. A file is
removed if one of them belongs to another patient now, and if nobody changed it since.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glomerulab.cases.case import Case
from glomerulab.errors import PredictionsError
from glomerulab.runtime.files import atomic_write, read_content
from glomerulab.runtime.messages import first_problem

__all__ = ["RECORD_FILE", "FolderOfReports", "Leftovers"]

RECORD_FILE = "reports.json"


class _WrittenFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    predictions: str
    """Their folder, relative to that of the reports, which may hold those of several."""
    patient: str
    shows: tuple[str, ...]
    """Slides, and images without a slide."""
    sha256: str | None
    """None while it is being written."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    files: dict[str, _WrittenFile] = Field(default_factory=dict)


@dataclass(frozen=True)
class Leftovers:
    """Files of a patient whose slides or images belong to another one now."""

    removed: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    """Changed since they were written."""


class FolderOfReports:
    """A folder of reports and its record."""

    def __init__(self, out: Path, predictions: Path, record: _Record) -> None:
        self._out, self._record = out, record
        self._predictions = os.path.relpath(predictions.resolve(), out.resolve())

    @classmethod
    def open(cls, out: Path, predictions: Path) -> Self:
        """Read the record; a folder without one holds no file that is known.

        Raises
        ------
        PredictionsError
            If the record is damaged.
        """
        path = out / RECORD_FILE
        if not path.exists():
            return cls(out, predictions, _Record())
        content = read_content(path, "record of the reports", error=PredictionsError)
        try:
            return cls(out, predictions, _Record.model_validate_json(content))
        except ValidationError as error:
            raise PredictionsError(
                f"the record of the reports is damaged ({first_problem(error)}); remove this file, "
                "and check that the folder holds no report of a patient id that was corrected",
                where=str(path),
            ) from error

    def remove_leftovers(self, cases: Sequence[Case]) -> Leftovers:
        """Remove the files whose slides or images `cases` have under another patient."""
        owners: dict[str, set[str]] = {}
        for case in cases:
            for name in _shown(case):
                owners.setdefault(name, set()).add(case.patient)
        wrong = {
            name: file
            for name, file in self._record.files.items()
            if file.predictions == self._predictions
            and any(file.patient not in owners.get(one, {file.patient}) for one in file.shows)
        }
        removed, kept = [], []
        for name, file in wrong.items():
            path = self._out / name
            if Path(name).name != name or not path.is_file():
                continue
            if _sha256(path) == file.sha256:
                path.unlink()
                removed.append(path)
            else:
                kept.append(path)
        if wrong:
            for name in wrong:
                if self._out / name not in kept:
                    del self._record.files[name]
            self.save()
        return Leftovers(tuple(removed), tuple(kept))

    def add(self, case: Case, paths: Iterable[Path], *, are_written: bool) -> None:
        """Record files of a case before and after they are written; `save` stores it."""
        for path in paths:
            self._record.files[path.name] = _WrittenFile(
                predictions=self._predictions,
                patient=case.patient,
                shows=_shown(case),
                sha256=_sha256(path) if are_written else None,
            )

    def save(self) -> None:
        """Store the record."""
        ordered = dict(sorted(self._record.files.items()))
        text = _Record(files=ordered).model_dump_json(indent=1)
        with atomic_write(self._out / RECORD_FILE) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _shown(case: Case) -> tuple[str, ...]:
    slides = [one.slide_id for one in case.slides]
    slides += [one.slide_id or one.name for one in case.facts.failures if one.case == case.patient]
    slides += [call.slide_id or call.image_id for call in case.calls]
    return tuple(sorted(set(slides)))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
