"""The predictions under review, reloaded when a file changes.

All state is in the folder, so a killed program loses nothing.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import CASE_FILE, PREDICTIONS_FILE, CaseFolder, read_case_folder
from glomerulab.cases.corrections import (
    CORRECTIONS_FILE,
    NOT_A_GLOMERULUS,
    CorrectionRow,
    submit_correction,
)
from glomerulab.cases.rules import RuleSet
from glomerulab.errors import PredictionsError, UnknownRecordError
from glomerulab.reports.case.html import PagePictures
from glomerulab.reports.case.pictures import data_uri
from glomerulab.reports.case.surroundings import Surroundings
from glomerulab.reports.html import picture_bytes
from glomerulab.reports.references import read_references
from glomerulab.runtime.names import safe_name


class PictureFiles:
    """The pictures of pages by keys that change with the files, so that browsers keep them."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], bytes]] = {}

    def address(self, key: str, read: Callable[[], bytes]) -> str:
        """Return the address of a picture, relative to the page of a case."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        self._readers[name] = read
        return f"../../pictures/{name}.jpg"

    def of_file(self, path: Path, size_px: int) -> str:
        """Return the address of an image file; one that cannot be read is an error here."""
        try:
            stat = path.stat()
        except OSError:
            return data_uri(path, size_px)  # raises the error that the page tells
        key = f"{path} {stat.st_mtime_ns} {stat.st_size} {stat.st_ino} {size_px}"
        read = partial(picture_bytes, path, size_px=size_px)
        if hashlib.sha256(key.encode()).hexdigest()[:32] not in self._readers:
            read()
        return self.address(key, read)

    def read(self, name: str) -> bytes:
        """Return a picture as JPEG."""
        if name not in self._readers:
            raise UnknownRecordError("these pages have no such picture; load the page again")
        return self._readers[name]()


class ReviewSession:
    """A predictions folder shown on several pages; thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        rule_sets: Sequence[RuleSet] | None = None,
        accept_edits: bool = False,
        slides: Path | None = None,
        structures: Path | None = None,
        references: Path | None = None,
    ) -> None:
        self._structures = structures
        self._accept_edits = accept_edits
        self.folder = folder.parent if folder.name in {CASE_FILE, PREDICTIONS_FILE} else folder
        self.files = PictureFiles()
        around = None if slides is None else Surroundings(slides, self.files.address)
        self._rule_sets = rule_sets
        self._lock = threading.Lock()
        self._read: tuple[str, CaseFolder] | None = None
        self._counted: tuple[str, dict[str, Case]] | None = None
        self.pictures = PagePictures(self.files.of_file, around, self._references(references))

    def state(self) -> str:
        """Return a digest of the predictions and corrections."""
        path = self.folder / CORRECTIONS_FILE
        corrections = path.read_bytes() if path.is_file() else b""
        return hashlib.sha256(self._predicted().encode() + corrections).hexdigest()[:32]

    def cases(self) -> tuple[str, dict[str, Case]]:
        """Count every case."""
        with self._lock:
            # Taken before the files are read: an earlier state only makes a page reload.
            state = self.state()
            if self._counted is None or self._counted[0] != state:
                found = build_cases(
                    self._case_folder(), self._rule_sets, structures=self._structures
                )
                self._counted = state, {safe_name(case.patient): case for case in found}
            return self._counted

    def case(self, name: str) -> tuple[str, Case]:
        """Return the state and one case by its file name, see `cases`."""
        state, cases = self.cases()
        if name not in cases:
            raise UnknownRecordError("these predictions hold no such case")
        return state, cases[name]

    def add(self, name: str, change: CorrectionRow, *, n_seen: int) -> int:
        """Add a correction of an image of a case, see `submit_correction`."""
        with self._lock:
            folder = self._case_folder()
            for patient, calls in folder.patients().items():
                is_other = safe_name(patient) != name
                if is_other and any(call.image_id == change.image_id for call in calls):
                    raise PredictionsError(
                        f"image {change.image_id!r} belongs to another case; correct it on the "
                        "page of that case"
                    )
            return submit_correction(folder, change, n_seen=n_seen)

    def _references(self, folder: Path | None) -> dict[str, str]:
        if folder is None:
            return {}
        ids = (*self._case_folder().taxonomy.label_ids, NOT_A_GLOMERULUS)
        return read_references(folder, ids, self.files.of_file)

    def _case_folder(self) -> CaseFolder:
        """Return the predictions, reloaded if they changed."""
        predicted = self._predicted()
        if self._read is None or self._read[0] != predicted:
            self._read = predicted, read_case_folder(self.folder, accept_edits=self._accept_edits)
        return self._read[1]

    def _predicted(self) -> str:
        """Return a fingerprint of the prediction files."""
        stats = [
            (self.folder / name).stat()
            for name in (CASE_FILE, PREDICTIONS_FILE)
            if (self.folder / name).is_file()
        ]
        return repr([(one.st_mtime_ns, one.st_size, one.st_ino) for one in stats])
