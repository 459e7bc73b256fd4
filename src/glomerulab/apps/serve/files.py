"""Files that clients name or download: slides of the allowed folder, results of jobs.

Errors do not reveal whether a path outside the slides folder exists.
"""

import zipfile
from pathlib import Path, PurePosixPath

from glomerulab.apps.web.security import NOTICE
from glomerulab.cases.case_folder import CASE_FILE, PREDICTIONS_FILE
from glomerulab.errors import NotAllowedError, UnknownRecordError
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.files import DICOM_SUFFIXES, SLIDE_SUFFIXES, dicom_slides
from glomerulab.slides.regions.files import REGION_SUFFIXES
from glomerulab.structures.summary import STRUCTURES_FOLDER

MAX_LENGTH = 1024
MAX_SHOWN = 200
MAX_LISTED = 1000
REPORTS_FOLDER = "reports"
FAILURES_FILE = "failures.csv"
RESULTS_SUFFIX = ".results"
"""Of the folder beside an inbox, which holds neither slides nor regions."""
ARCHIVE = "result.zip"
RESULTS = {
    ARCHIVE: "application/zip",
    PREDICTIONS_FILE: "text/csv",
    FAILURES_FILE: "text/csv",
    CASE_FILE: "application/json",
    "report.html": "text/html",
}
"""Media type of each file of a result, by name."""
PACKED_FOLDERS = ("cut/crops", "maps", STRUCTURES_FOLDER, REPORTS_FOLDER)
"""Folders that `glomerulab report` needs besides the tables."""
COMPRESSED_SUFFIXES = {".png", ".jpg", ".jpeg"}


class SlideFolder:
    """The folder that jobs may read; it must exist."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, name: str) -> Path:
        """Resolve a name to a file or folder below the slides folder."""
        parts = PurePosixPath(name).parts
        if (
            not name
            or len(name) > MAX_LENGTH
            or name.startswith("/")
            or ".." in parts
            or "\\" in name
            or not name.isprintable()
        ):
            raise NotAllowedError(
                "a path must be relative to the slides folder and must not leave it"
            )
        place = self._resolve(self.root.joinpath(*parts))
        if not _exists(place):
            shown = str(PurePosixPath(name))
            shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
            raise UnknownRecordError(f"there is no {shown} in the slides folder")
        if place.is_dir():
            # A DICOM slide or a folder of region files: its files are opened by name later.
            for child in place.iterdir():
                self._resolve(child)
        return place

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of slides, and of region files and their folders.

        Sorted, at most `MAX_LISTED` of each, those in subfolders included; a series of DICOM files
        is one slide, named by its folder where it is the only one.
        """
        slides, regions, dicom = set[str](), set[str](), set[Path]()
        for path in self.root.rglob("*"):
            suffix, place = path.suffix.lower(), path.relative_to(self.root)
            is_shown = not any(
                part.startswith(".") or part.endswith(RESULTS_SUFFIX) for part in place.parts
            )
            if not is_shown or not self._is_inside(path) or not path.is_file():
                continue
            if suffix in DICOM_SUFFIXES:
                dicom.add(path.parent)
            elif suffix in SLIDE_SUFFIXES:
                slides.add(place.as_posix())
            elif suffix in REGION_SUFFIXES:
                regions |= {place.as_posix(), place.parent.as_posix()}
        for folder in dicom:
            for path, files in dicom_slides(folder).items():
                opened = files[0] if path == self.root else path
                slides.add(opened.relative_to(self.root).as_posix())
        return sorted(slides)[:MAX_LISTED], sorted(regions)[:MAX_LISTED]

    def _is_inside(self, path: Path) -> bool:
        try:
            self._resolve(path)
        except NotAllowedError:
            return False
        return True

    def _resolve(self, path: Path) -> Path:
        """Resolve symbolic links, and refuse those that leave the folder."""
        try:
            place = path.resolve()
        except (OSError, RuntimeError) as error:  # a link to itself
            raise NotAllowedError(
                "the path cannot be resolved; its symbolic links form a loop"
            ) from error
        if place != self.root and self.root not in place.parents:
            raise NotAllowedError("the path contains a symbolic link that leaves the slides folder")
        return place


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long for the file system
        return False


def pack_results(folder: Path) -> None:
    """Archive predictions, crops and reports of a finished job as ``result.zip``."""
    files = [folder / name for name in (PREDICTIONS_FILE, CASE_FILE, FAILURES_FILE)]
    files += [path for name in PACKED_FOLDERS for path in sorted((folder / name).rglob("*"))]
    with atomic_write(folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("RESEARCH-USE-ONLY.txt", NOTICE + "\n")
        for path in files:
            if path.is_file():
                is_compressed = path.suffix.lower() in COMPRESSED_SUFFIXES
                method = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder), compress_type=method)


def find_result(folder: Path, name: str) -> Path | None:
    """Return a file of a result, a key of `RESULTS`; None if there is none."""
    if name == "report.html":
        return next(iter(sorted((folder / REPORTS_FOLDER).glob("*.html"))), None)
    path = folder / name
    return path if path.is_file() else None


def result_file(folder: Path, name: str) -> Path:
    """Return a file of a result; raise UnknownRecordError if there is none."""
    path = find_result(folder, name)
    if path is None:
        raise UnknownRecordError(f"this job's result holds no {name}")
    return path
