"""The manifest: one row per image, with its patient, origin, position and labels.

Reading converts every column to its type and refuses malformed cells; rules that need several
rows, the taxonomy or the pixels are in `glomerulab.cohort.validation`. No image is opened here.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.schema import (
    MANIFEST_COLUMNS,
    REQUIRED_COLUMNS,
    Problem,
    manifest_schema,
    typed_table,
)
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.runtime.files import StrPath, atomic_write, remove_partial_files, stated_path
from glomerulab.runtime.parquet import read_parquet
from glomerulab.runtime.tables import TableSchema, nfc_frame, read_table
from glomerulab.taxonomy import Taxonomy, load_taxonomy, write_taxonomy

__all__ = [
    "TAXONOMY_FILE",
    "Manifest",
    "check_same_labels",
    "manifest_from_rows",
    "parse_manifest",
    "raise_first",
    "read_manifest",
    "write_manifest",
]

TAXONOMY_FILE = "taxonomy.toml"
"""File beside a manifest whose labels differ from the built-in taxonomy ``paper``."""


@dataclass(frozen=True)
class Manifest:
    """A table of images, the folder of its paths, and its taxonomy."""

    table: pd.DataFrame
    """One row per image: `MANIFEST_COLUMNS`, then one Int8 column per label, then any others."""
    folder: Path
    """Base of the relative `image_path`."""
    taxonomy: Taxonomy
    file: Path | None = None
    """The file it was read from; None if it was made in memory."""

    @property
    def location(self) -> str:
        """The file, or else the folder, for error messages."""
        return str(self.file or self.folder)

    @property
    def is_synthetic(self) -> bool:
        """Whether any image was rendered by a program, according to the column ``synthetic``."""
        if "synthetic" not in self.table:
            return False
        flags = self.table["synthetic"].astype("string").str.casefold()
        return bool(flags.isin(["1", "1.0", "true"]).any())

    def image_paths(self) -> list[Path]:
        """Return the absolute path of every image, in the order of the rows."""
        folder = self.folder.absolute()
        return [stated_path(folder, str(path)) for path in self.table["image_path"]]

    def labels(self) -> npt.NDArray[np.float64]:
        """Return the labels, float64, shape (n_rows, n_labels): 1, 0, or NaN where unknown."""
        columns = list(self.taxonomy.label_ids)
        return self.table[columns].to_numpy(dtype=np.float64, na_value=np.nan)

    def part(self, name: str) -> "Manifest":
        """Return the images of one part of the split."""
        inside = (self.table["split"] == name).fillna(value=False)
        return self.with_table(self.table[inside.to_numpy(dtype=bool)])

    def with_table(self, table: pd.DataFrame) -> "Manifest":
        """Return a copy with another table, whose index is reset."""
        return replace(self, table=table.reset_index(drop=True))

    def with_constants(self, constants: Mapping[str, str]) -> "Manifest":
        """Return a copy with columns that have one value in every row.

        Parameters
        ----------
        constants : mapping of str to str
            Name of a manifest column or label to its value, such as ``{"stain": "HE"}``.

        Raises
        ------
        ManifestError
            If there is no such column, or its value is malformed.
        """
        unknown = sorted(set(constants) - {*MANIFEST_COLUMNS, *self.taxonomy.label_ids})
        if unknown:
            raise ManifestError(f"a manifest has no column or label {', '.join(unknown)}")
        columns = {
            name: pd.Series([value] * len(self.table), dtype="string")
            for name, value in constants.items()
        }
        table = self.table.assign(**columns)
        return manifest_from_rows(table, folder=self.folder, taxonomy=self.taxonomy)


def read_manifest(
    path: StrPath, taxonomy: Taxonomy | None = None, *, columns: Collection[str] | None = None
) -> Manifest:
    """Read a manifest from CSV or Parquet.

    Parameters
    ----------
    path : Path
        Ends in ``.csv`` or ``.parquet``. A CSV has a header; see
        `glomerulab.runtime.tables.read_table`.
    taxonomy : Taxonomy, optional
        Its labels are columns. By default ``taxonomy.toml`` beside the manifest if there is one,
        else the built-in ``paper``.
    columns : collection of str, optional
        Read these alone, beside image_id and image_path: `MANIFEST_COLUMNS`, labels or others. Of a
        Parquet file the other columns are not touched.

    Returns
    -------
    Manifest
        Columns that the file lacks are empty.

    Raises
    ------
    ManifestError
        If the file or a cell is missing or malformed; the message names the file and the first
        such row.

    See Also
    --------
    glomerulab.cohort.validation.validate_manifest : Checks of several rows, labels and pixels.
    """
    path = Path(path)
    manifest, problems = parse_manifest(path, taxonomy, columns)
    raise_first(problems, where=str(path))
    return manifest


def parse_manifest(
    path: Path, taxonomy: Taxonomy | None = None, columns: Collection[str] | None = None
) -> tuple[Manifest, list[Problem]]:
    """Read a manifest like `read_manifest`, and return every malformed cell instead of raising.

    Returns
    -------
    manifest : Manifest
        Malformed cells are empty.
    problems : list of Problem
        In the order of the rows.

    Raises
    ------
    ManifestError
        If the file as a whole cannot be read.
    """
    _check_suffix(path)
    if taxonomy is None:
        beside = path.parent / TAXONOMY_FILE
        taxonomy = load_taxonomy(beside if beside.is_file() else "paper")
    wanted = None if columns is None else {*REQUIRED_COLUMNS, *columns}
    rows = _read_rows(path, taxonomy, wanted)
    table, problems = typed_table(rows, taxonomy, wanted)
    return Manifest(table, path.parent, taxonomy, path), problems


def manifest_from_rows(rows: pd.DataFrame, *, folder: Path, taxonomy: Taxonomy) -> Manifest:
    """Build a manifest from rows in memory, with the checks of `read_manifest`.

    Parameters
    ----------
    rows : DataFrame
        Any of `MANIFEST_COLUMNS` and the labels; at least image_id and image_path.
    folder : Path
        Base of the relative `image_path`.
    """
    missing = [name for name in ("image_id", "image_path") if name not in rows]
    if missing:
        raise ManifestError(f"the table lacks the columns {', '.join(missing)}", where=str(folder))
    table, problems = typed_table(rows, taxonomy)
    raise_first(problems, where=str(folder))
    return Manifest(table, folder, taxonomy)


def write_manifest(manifest: Manifest, path: StrPath) -> None:
    """Write a manifest as CSV or Parquet, and its taxonomy beside it unless that is ``paper``.

    Parameters
    ----------
    manifest : Manifest
        Its image paths are rewritten relative to the folder of `path`.
    path : Path
        Ends in ``.csv`` or ``.parquet``; replaced if it exists.

    Raises
    ------
    ManifestError
        If the suffix is another, or the folder holds manifests with another taxonomy.
    """
    path = Path(path)
    _check_suffix(path)
    _write_taxonomy_beside(manifest.taxonomy, path.parent)
    table = manifest.table.copy()
    if manifest.folder.absolute() != path.parent.absolute():
        start = path.parent.absolute()
        relative = [Path(os.path.relpath(p, start)).as_posix() for p in manifest.image_paths()]
        table["image_path"] = pd.array(relative, dtype="string")
    remove_partial_files(path)
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def check_same_labels(manifest: Manifest, taxonomy: Taxonomy) -> None:
    """Raise a `TaxonomyError` if images have known labels that are not those of a model.

    Images without labels are accepted for any model.
    """
    of_model, of_images = taxonomy.label_ids, manifest.taxonomy.label_ids
    if of_model != of_images and not np.isnan(manifest.labels()).all():
        raise TaxonomyError(
            f"the images have labels {', '.join(of_images)}, but the model predicts "
            f"{', '.join(of_model)}; give another model, or remove the label columns and "
            "taxonomy.toml to predict without labels",
            where=manifest.location,
        )


def raise_first(problems: list[Problem], *, where: str | None) -> None:
    """Raise a `ManifestError` for the first problem, with the number of the others, if any."""
    if not problems:
        return
    others = len(problems) - 1
    rest = f" (and {others} more; `glomerulab manifest check` lists them)" if others else ""
    raise ManifestError(f"{problems[0]}{rest}", where=where)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in {".csv", ".parquet"}:
        raise ManifestError("a manifest must end in .csv or .parquet", where=str(path))


def _read_rows(path: Path, taxonomy: Taxonomy, wanted: Collection[str] | None) -> pd.DataFrame:
    """Read the file, or the wanted columns of it, cells of a CSV as text or missing."""
    schema = manifest_schema(taxonomy)
    if path.suffix.lower() == ".csv":
        rows = read_table(path, schema).frame()
    else:
        rows = read_parquet(
            path,
            name=schema.name,
            error=ManifestError,
            choose=lambda names: names if wanted is None else _named(names, schema, wanted),
        )
        rows = nfc_frame(rows, schema, where=str(path))
    return rows if wanted is None else rows[[name for name in rows if name in wanted]]


def _named(names: Sequence[str], schema: TableSchema, wanted: Collection[str]) -> list[str]:
    """Return the names in a header, whatever their spelling, of the wanted columns."""
    spelling = schema.spelling(names)
    return [name for name in names if spelling.get(name, name) in wanted]


def _write_taxonomy_beside(taxonomy: Taxonomy, folder: Path) -> None:
    beside = folder / TAXONOMY_FILE
    if beside.is_file():
        if load_taxonomy(beside) != taxonomy:
            raise ManifestError(
                "this folder holds manifests with another taxonomy; write to another folder",
                where=str(beside),
            )
    elif taxonomy != load_taxonomy("paper"):
        write_taxonomy(taxonomy, beside)
