"""What of a finished job goes to its client, by the names it asks for."""

import zipfile
from pathlib import Path

from glomerulab.apps.web.notice import NOTICE
from glomerulab.cases.case_folder import CASE_FILE, PREDICTIONS_FILE
from glomerulab.errors import UnknownRecordError
from glomerulab.runtime.files import atomic_write

__all__ = [
    "FAILURES_FILE",
    "REPORTS_FOLDER",
    "RESULTS",
    "find_result",
    "pack_results",
    "result_file",
]

REPORTS_FOLDER = "reports"
FAILURES_FILE = "failures.csv"
ARCHIVE = "result.zip"
RESULTS = {
    ARCHIVE: "application/zip",
    PREDICTIONS_FILE: "text/csv",
    FAILURES_FILE: "text/csv",
    CASE_FILE: "application/json",
    "report.html": "text/html",
}
"""Name to media type."""

PACKED_FOLDERS = ("cut/crops", "maps", REPORTS_FOLDER)
"""With the tables they are all that `glomerulab report` needs."""
PACKED_ALREADY = {".png", ".jpg", ".jpeg"}


def pack_results(folder: Path) -> None:
    """Put predictions, crops and reports of a finished job into one archive.

    Parameters
    ----------
    folder : Path
        Gets ``result.zip``.
    """
    files = [folder / name for name in (PREDICTIONS_FILE, CASE_FILE, FAILURES_FILE)]
    files += [path for name in PACKED_FOLDERS for path in sorted((folder / name).rglob("*"))]
    with atomic_write(folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("RESEARCH-USE-ONLY.txt", NOTICE + "\n")
        for path in files:
            if path.is_file():
                is_packed = path.suffix.lower() in PACKED_ALREADY
                method = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder), compress_type=method)


def find_result(folder: Path, name: str) -> Path | None:
    """Return a file of a result; None if there is none.

    Parameters
    ----------
    name : str
        Of `RESULTS`.
    """
    if name == "report.html":
        return next(iter(sorted((folder / REPORTS_FOLDER).glob("*.html"))), None)
    path = folder / name
    return path if path.is_file() else None


def result_file(folder: Path, name: str) -> Path:
    """Return a file of a result.

    Parameters
    ----------
    name : str
        Of `RESULTS`.

    Raises
    ------
    UnknownRecordError
        If there is none, such as failures where nothing failed.
    """
    path = find_result(folder, name)
    if path is None:
        raise UnknownRecordError(f"this job has no {name}")
    return path
