"""Import a cohort from a CSV with a mapping of columns, classes and values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from glomerulab.cohort.manifest import NOT_UTF8, Manifest, manifest_from_rows
from glomerulab.cohort.schema import MANIFEST_COLUMNS
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.taxonomy import Taxonomy

__all__ = ["ColumnMapping", "import_csv"]


@dataclass(frozen=True)
class ColumnMapping:
    """How the columns of a table correspond to those of a manifest."""

    columns: Mapping[str, str]
    """Manifest column or label id to the table's column, where the names differ."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Manifest column to the value of every row, such as ``{"stain": "HE"}``."""
    label_column: str | None = None
    """Column that names one class per row."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Class in `label_column` to label id; other classes are looked up in the taxonomy."""
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(manifest column, value in the table) to value: ``("stain", "sil")`` to ``"PASM"``."""


def import_csv(
    path: Path,
    mapping: ColumnMapping,
    taxonomy: Taxonomy,
    *,
    image_root: Path | None = None,
) -> Manifest:
    """Build a manifest from a CSV.

    Parameters
    ----------
    path : Path
        UTF-8, with a header, separated by commas.
    mapping : ColumnMapping
        Columns that it does not mention are kept; those with the name of a manifest column, or of a
        label if there is no label column, are mapped to it. Without a column for image_id, the id
        is the image path without suffix.
    image_root : Path, optional
        Base of the image paths; by default the folder of `path`.

    Returns
    -------
    Manifest
        In the order of the table. With a label column, the class of a row is 1 and the others are
        0; an empty cell leaves all of them unknown.

    Raises
    ------
    ManifestError
        If the file cannot be read, a mapped column is missing, or a cell is malformed; the message
        names the line.
    TaxonomyError
        If a class is not a label; the message names the line.
    """
    source = _read(path)
    mapping = _with_default_columns(mapping, source, taxonomy)
    _check(mapping, source, taxonomy, path)
    rows = pd.DataFrame(index=source.index)
    for column, name in mapping.columns.items():
        cells = source[name]
        renamed = {old: new for (of, old), new in mapping.values.items() if of == column}
        rows[column] = cells.replace(renamed) if renamed else cells
    for column, value in mapping.constants.items():
        rows[column] = pd.array([value] * len(source), dtype="string")
    if "image_id" not in rows:
        rows["image_id"] = rows["image_path"].map(_without_suffix, na_action="ignore")
    if mapping.label_column is not None:
        rows = rows.join(_labels(source[mapping.label_column], mapping, taxonomy, path))
    used = {*rows.columns, *mapping.columns.values(), mapping.label_column}
    kept = [name for name in source if name not in used]
    folder = path.parent if image_root is None else image_root
    try:
        return manifest_from_rows(rows.join(source[kept]), folder=folder, taxonomy=taxonomy)
    except ManifestError as error:
        raise ManifestError(error.message, where=str(path)) from error


def _read(path: Path) -> pd.DataFrame:
    try:
        cells = pd.read_csv(
            path,
            dtype="string",
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            skip_blank_lines=False,
        )
        header = pd.read_csv(
            path, dtype="string", keep_default_na=False, encoding="utf-8-sig", header=None, nrows=1
        ).iloc[0]
    except UnicodeDecodeError as error:
        raise ManifestError(NOT_UTF8, where=str(path)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip()
        raise ManifestError(f"the table cannot be read: {reason}", where=str(path)) from error
    twice = header[header.duplicated() & (header != "")].unique()
    if len(twice):  # pandas renames the second one silently
        names = ", ".join(map(repr, twice))
        raise ManifestError(f"the table has two columns {names}; rename one", where=str(path))
    return cells


def _with_default_columns(
    mapping: ColumnMapping, source: pd.DataFrame, taxonomy: Taxonomy
) -> ColumnMapping:
    """Map columns with the name of a manifest column to it, so that no patients are lost."""
    labels = () if mapping.label_column is not None else taxonomy.label_ids
    taken = {*mapping.columns, *mapping.columns.values(), *mapping.constants, mapping.label_column}
    own = {
        name: name for name in (*MANIFEST_COLUMNS, *labels) if name in source and name not in taken
    }
    return replace(mapping, columns={**mapping.columns, **own})


def _check(mapping: ColumnMapping, source: pd.DataFrame, taxonomy: Taxonomy, path: Path) -> None:
    """Check that the mapped columns exist in the manifest and in the table."""
    targets = {*mapping.columns, *mapping.constants}
    unknown = sorted(targets - {*MANIFEST_COLUMNS, *taxonomy.label_ids})
    if unknown:
        raise ManifestError(
            f"a manifest has no column or label {', '.join(unknown)}; known are "
            + ", ".join((*MANIFEST_COLUMNS, *taxonomy.label_ids)),
            where=str(path),
        )
    if "image_path" not in mapping.columns:
        raise ManifestError(
            "no column is mapped to image_path; give --column image_path=NAME", where=str(path)
        )
    wanted = {*mapping.columns.values()} | ({mapping.label_column} - {None})
    missing = sorted(str(name) for name in wanted if name not in source)
    if missing:
        raise ManifestError(
            f"the table has no column {', '.join(map(repr, missing))}, only "
            + ", ".join(repr(str(name)) for name in source),
            where=str(path),
        )


def _labels(
    names: pd.Series, mapping: ColumnMapping, taxonomy: Taxonomy, path: Path
) -> pd.DataFrame:
    columns: dict[str, list[int | None]] = {label_id: [] for label_id in taxonomy.label_ids}
    for row, name in enumerate(names):
        label_id = None if pd.isna(name) else _label_id(str(name), mapping, taxonomy, path, row)
        for known, cells in columns.items():
            cells.append(None if label_id is None else int(known == label_id))
    return pd.DataFrame(
        {known: pd.array(cells, dtype="Int8") for known, cells in columns.items()},
        index=names.index,
    )


def _label_id(name: str, mapping: ColumnMapping, taxonomy: Taxonomy, path: Path, row: int) -> str:
    try:
        return taxonomy.find(mapping.classes.get(name.strip(), name)).id
    except TaxonomyError as error:
        place = f"{path}: line {row + 2}"
        raise TaxonomyError(f"{error.message}; map it with --class", where=place) from error


def _without_suffix(path: str) -> str:
    pure = PurePosixPath(path)
    return pure.with_suffix("").as_posix() if pure.name else path  # "." has no suffix to lose
