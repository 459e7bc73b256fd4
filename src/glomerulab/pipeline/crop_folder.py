"""The output folder of extract: the record of how its crops were cut, and the list of failures."""

import csv
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glomerulab.errors import OutputError
from glomerulab.pipeline.crop_plan import CROPS_FOLDER, MASKS_FOLDER, Failure
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.resume import SettingsFile, changed_settings, describe_changes
from glomerulab.runtime.tables import not_a_formula
from glomerulab.slides.regions.features import RegionOptions

__all__ = ["CropFolder", "read_failures", "write_failures"]

MANIFEST_FILE = "manifest.csv"
FAILURES_FILE = "failures.csv"
STATE_FILE = "extract.json"
LOCK_FILE = ".extract.lock"
PART_RECORDS = "extract.*-*.json"
FORMAT_VERSION = 1
WAY_OUT = "choose another --out, or give --overwrite to cut everything again"


class CropFolder:
    """The record of how the crops of a folder were cut."""

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        part: tuple[int, int] | None,
        *,
        overwrite: bool,
    ) -> None:
        """Check that the folder is new, or that the settings of its run are the same.

        Each part has a record of its own, since several may run side by side.
        """
        self._out = out
        self._is_part = part is not None
        name = STATE_FILE if part is None else f"extract.{part[0]}-{part[1]}.json"
        self._file = SettingsFile(out / name)
        records = self._records()
        if not records:
            self._refuse_foreign()
        self._replaces = bool(records) and overwrite
        if self._replaces:
            records = []
        for known in records:
            self._check_settings(known["settings"], settings)
        self._known = {k: v for one in records for k, v in one["fingerprints"].items()}
        self._state: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "settings": dict(settings),
            "fingerprints": {} if self._is_part else dict(self._known),
        }
        self._has_begun = False

    def begin(self) -> None:
        """Record the settings, and delete what is overwritten, before the first crop is cut."""
        if not self._has_begun:
            if self._replaces:
                self._delete()
            self._file.write(self._state)
            self._has_begun = True

    def add_all(self, fingerprints: Mapping[str, str]) -> None:
        """Record slides before their crops are cut, unless they are recorded already."""
        for slide_id, fingerprint in fingerprints.items():
            if self._known.get(slide_id, fingerprint) != fingerprint:
                raise OutputError(
                    f"slide {slide_id!r}, its regions or the names of their crops changed since "
                    "its crops were cut; "
                    f"{WAY_OUT}",
                    where=str(self._out),
                )
        if fingerprints:
            self.begin()
        recorded = self._state["fingerprints"]
        if not recorded.keys() >= fingerprints.keys():
            recorded |= fingerprints
            self._known |= fingerprints
            self._file.write(self._state)

    def finish(self) -> None:
        """Delete the records of parts, which the record of the whole holds now."""
        if not self._is_part:
            for path in (*self._out.glob(PART_RECORDS), *self._out.glob(f"{LOCK_FILE}-*")):
                path.unlink(missing_ok=True)

    def _records(self) -> list[dict[str, Any]]:
        """Read the record of the whole and those of parts."""
        found = []
        for path in (self._out / STATE_FILE, *sorted(self._out.glob(PART_RECORDS))):
            state = SettingsFile(path).read()
            if state is None:
                continue
            if (
                state.get("version") != FORMAT_VERSION
                or not isinstance(state.get("settings"), dict)
                or not isinstance(state.get("fingerprints"), dict)
            ):
                raise OutputError(
                    f"{path.name} is damaged or was written by another version; choose another "
                    "--out",
                    where=str(self._out),
                )
            found.append(state)
        return found

    def _check_settings(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        # Folders of earlier versions do not say how their regions were read.
        known = {"regions": RegionOptions().record()}
        changes = changed_settings(known | {name: then[name] for name in now if name in then}, now)
        if changes:
            raise OutputError(
                f"the crops in this folder were cut with other settings "
                f"({describe_changes(changes)}); {WAY_OUT}",
                where=str(self._out),
            )

    def _delete(self) -> None:
        """Delete what extract wrote to the folder, and nothing else."""
        try:
            for name in (CROPS_FOLDER, MASKS_FOLDER):
                if (self._out / name).is_dir():
                    shutil.rmtree(self._out / name)
            for name in (MANIFEST_FILE, FAILURES_FILE, "taxonomy.toml", STATE_FILE):
                (self._out / name).unlink(missing_ok=True)
            for path in self._out.glob(PART_RECORDS):
                path.unlink()
        except OSError as error:
            raise OutputError(
                f"the crops in this folder cannot be deleted: {error.strerror}",
                where=str(self._out),
            ) from error

    def _refuse_foreign(self) -> None:
        for name in (MANIFEST_FILE, CROPS_FOLDER):
            if (self._out / name).exists():
                raise OutputError(
                    f"this folder holds a {name} that extract did not write; choose another --out",
                    where=str(self._out),
                )


def write_failures(path: Path, failures: Sequence[Failure], *, region_column: str) -> None:
    """Write the failures as CSV; without any, delete the file."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", region_column, "reason"))
        for one in failures:
            writer.writerow(map(not_a_formula, (one.slide, one.region, one.reason)))


def read_failures(path: Path) -> Generator[Failure]:
    """Yield the failures in a file; none if it does not exist."""
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                yield Failure(row["slide"], row["region"], row["reason"])
