"""Import a cohort from a CSV with a mapping of columns, classes and values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.cohort.schema import MANIFEST_COLUMNS, manifest_schema
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.runtime.tables import TableSchema, decimal_point, nfc, read_cells
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
        With a header; see `glomerulab.runtime.tables.read_table`.
    mapping : ColumnMapping
        Columns that it does not mention are kept; those with the name of a manifest column, or of a
        label if there is no label column, are mapped to it. Without either, a column such as
        ``label`` or ``class`` is the label column. Without a column for image_id, the id
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
    table = read_cells(path, name="table", error=ManifestError)
    source = table.frame()
    mapping = _with_label_column(mapping, source, taxonomy)
    mapping = _with_default_columns(mapping, source, taxonomy)
    _check(mapping, source, taxonomy, path)
    numbers = manifest_schema(taxonomy).numbers
    rows = pd.DataFrame(index=source.index)
    for column, name in mapping.columns.items():
        cells = source[name]
        if column in numbers:
            cells = _with_decimal_points(cells, table.separator)
        renamed = {nfc(old): nfc(new) for (of, old), new in mapping.values.items() if of == column}
        rows[column] = cells.replace(renamed) if renamed else cells
    for column, value in mapping.constants.items():
        rows[column] = pd.array([nfc(value)] * len(source), dtype="string")
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


def _with_label_column(
    mapping: ColumnMapping, source: pd.DataFrame, taxonomy: Taxonomy
) -> ColumnMapping:
    """Take a column such as ``class`` as that of the classes, if no label has its own column."""
    names = [str(name) for name in source]
    found = manifest_schema(taxonomy).spelling(names).values()
    labels = set(taxonomy.label_ids)
    if mapping.label_column is not None or labels & {*found, *mapping.columns, *mapping.constants}:
        return mapping
    free = [name for name in names if name not in mapping.columns.values()]
    column = next(iter(TableSchema("labels", ("labels",)).spelling(free)), None)
    return replace(mapping, label_column=column)


def _with_default_columns(
    mapping: ColumnMapping, source: pd.DataFrame, taxonomy: Taxonomy
) -> ColumnMapping:
    """Map columns with the name of a manifest column to it, so that no patients are lost."""
    taken = {*mapping.columns.values(), mapping.label_column}
    found = manifest_schema(taxonomy).spelling([str(n) for n in source if n not in taken])
    labels = () if mapping.label_column is None else taxonomy.label_ids
    used = {*mapping.columns, *mapping.constants, *labels}
    own = {column: name for name, column in found.items() if column not in used}
    return replace(mapping, columns={**mapping.columns, **own})


def _with_decimal_points(cells: pd.Series, separator: str) -> pd.Series:
    return cells.map(lambda cell: decimal_point(cell, separator), na_action="ignore")


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
