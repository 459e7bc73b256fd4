"""The columns of a manifest: their names, types and rules for a single cell. No file is opened."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.runtime.tables import BOX_COLUMNS, SPELLINGS, TableSchema, is_plain_text
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "DISTINCT_COLUMN",
    "HALF_BOX",
    "MANIFEST_COLUMNS",
    "NORMALIZED_FROM_COLUMN",
    "REQUIRED_COLUMNS",
    "SPLITS",
    "STAINS",
    "STAIN_TARGET_COLUMN",
    "TARGET_LEAK_COLUMN",
    "Problem",
    "check_stain",
    "half_boxes",
    "manifest_schema",
    "typed_table",
]

MANIFEST_COLUMNS = (
    "image_id",
    "image_path",
    "patient_id",
    "slide_id",
    "stain",
    "mpp",
    "x",
    "y",
    "width",
    "height",
    "parent_id",
    "split",
    "fold",
)
"""Columns of every manifest, in order; those of the labels follow, then any others."""

STAINS = ("HE", "PAS", "PASM", "TRI", "H-DAB", "other")
"""Haematoxylin-eosin, periodic acid-Schiff, periodic acid silver methenamine, Masson trichrome,
immunohistochemistry in brown (haematoxylin and diaminobenzidine)."""

HALF_BOX = "x and y need each other, and a width and height; set or empty all of them"
"""Rule of every table with `BOX_COLUMNS`; a size alone is that of an image without a place."""


def check_stain(stain: str | None) -> None:
    """Raise ValueError for a stain that manifests do not know; None is unknown, and allowed."""
    if stain is not None and stain not in STAINS:
        raise ValueError(f"stain must be one of {', '.join(STAINS)}, got {stain!r}")


SPLITS = ("train", "validation", "test")
"""Parts of a split."""

NORMALIZED_FROM_COLUMN = "normalized_from"
"""Of a normalised manifest: the original of the image."""

STAIN_TARGET_COLUMN = "stain_target"
"""Of a normalised manifest: the stain reference of the image's target."""

TARGET_LEAK_COLUMN = "stain_target_leak"
"""Of a normalised manifest: the held-out part that an image's stain target was taken from."""

INTEGER_COLUMNS = (*BOX_COLUMNS, "fold")
DISTINCT_COLUMN = "distinct_patient"
"""1 where a person confirmed that the patient is not the one with a similar id."""
FURTHER_COLUMNS = frozenset(
    {"region_id", "synthetic", "scanner", "padded_share", "partner_id", DISTINCT_COLUMN}
)
"""Columns that some steps add; kept like any other."""
REQUIRED_COLUMNS = ("image_id", "image_path")

Cells = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a manifest, and its row."""

    message: str
    row: int | None = None
    """Index in the table, from 0; None if the problem concerns the whole file."""
    image_id: str | None = None

    def __str__(self) -> str:
        """Return the line as a text editor counts it (the header is line 1), then the message."""
        if self.row is None:
            return self.message
        image = "" if self.image_id is None else f", image {self.image_id!r}"
        return f"line {self.row + 2}{image}: {self.message}"


def manifest_schema(taxonomy: Taxonomy) -> TableSchema:
    """Return the schema of the manifests with these labels, which may go by their names too."""
    return TableSchema(
        "manifest",
        (*MANIFEST_COLUMNS, *taxonomy.label_ids),
        required=REQUIRED_COLUMNS,
        numbers=frozenset({*INTEGER_COLUMNS, "mpp", *taxonomy.label_ids}),
        spellings={
            label.id: (label.name, label.name_zh or label.name) for label in taxonomy.labels
        },
        further=FURTHER_COLUMNS,
        hints={
            name: "a manifest has one column per label; `glomerulab manifest import "
            f"--label-column {name}` makes them"
            for name in ("labels", *SPELLINGS["labels"])
        },
        error=ManifestError,
        source="give the CSV that `glomerulab extract` or `glomerulab manifest import` wrote",
        way_out="`glomerulab manifest import` converts other tables to a manifest",
    )


def half_boxes(table: pd.DataFrame) -> list[int]:
    """Return the rows with half a place on a slide; see `HALF_BOX`. Missing columns are empty."""
    known = np.column_stack(
        [
            table[name].notna() if name in table else np.zeros(len(table), dtype=np.bool_)
            for name in BOX_COLUMNS
        ]
    )
    half = (known[:, 0] != known[:, 1]) | (known[:, 2] != known[:, 3])
    return [int(row) for row in np.flatnonzero(half | (known[:, 0] & ~known[:, 2]))]


def typed_table(
    rows: pd.DataFrame, taxonomy: Taxonomy, columns: Collection[str] | None = None
) -> tuple[pd.DataFrame, list[Problem]]:
    """Convert every column to its type, in the canonical order, and collect invalid cells.

    Parameters
    ----------
    columns : collection of str, optional
        Of the table; by default those of every manifest, of the labels, and any others.
    """
    clash = sorted(set(taxonomy.label_ids) & set(MANIFEST_COLUMNS))
    if clash:
        raise TaxonomyError(
            f"the taxonomy has labels with the names of manifest columns: {', '.join(clash)}; "
            "rename them",
            where=taxonomy.name,
        )
    known = (*MANIFEST_COLUMNS, *taxonomy.label_ids)
    typed: dict[str, object] = {}
    found: list[tuple[int, str]] = []
    empty = pd.Series(pd.NA, index=pd.RangeIndex(len(rows)), dtype="string")
    for name in known if columns is None else [name for name in known if name in columns]:
        typed[name], messages = _typed_column(rows.get(name, empty), name)
        found += messages
    table = pd.DataFrame(typed, index=pd.RangeIndex(len(rows)))
    others = [name for name in rows if name not in typed]
    if others:
        table = pd.concat([table, rows[others].reset_index(drop=True)], axis="columns")
    found += _duplicate_ids(table["image_id"])
    ids = table["image_id"]
    problems = [
        Problem(message, row, None if pd.isna(ids[row]) else str(ids[row]))
        for row, message in sorted(found, key=lambda item: item[0])
    ]
    return table, problems


def _typed_column(cells: pd.Series, name: str) -> tuple[object, list[tuple[int, str]]]:
    """Return the typed column, and (row, message) of each invalid cell."""
    is_number = name in INTEGER_COLUMNS or name == "mpp" or name not in MANIFEST_COLUMNS
    is_exact = cells.dtype.kind in "iu" or cells.dtype == np.float64
    text = cells.reset_index(drop=True) if is_number and is_exact else _as_text(cells)
    given = text.notna().to_numpy()
    if name in TEXT_RULES:
        fits, rule = TEXT_RULES[name]
        wrong = given & ~fits(text)
        column: object = text.mask(wrong).array
    elif is_number:
        wrong, column, rule = _number_column(text, given, name)
    else:
        wrong, column, rule = np.zeros(len(text), dtype=np.bool_), text.array, ""
    messages = [
        (int(row), f"{name} must be {rule}, got {str(text.iloc[row])!r}")
        for row in np.flatnonzero(wrong)
    ]
    if name in REQUIRED_COLUMNS:
        messages += [(int(row), f"{name} is empty") for row in np.flatnonzero(~given)]
    return column, messages


def _number_column(
    text: pd.Series, given: npt.NDArray[np.bool_], name: str
) -> tuple[Flags, object, str]:
    fits, rule, dtype = NUMBER_RULES.get(name, LABEL_RULE)
    numbers = pd.to_numeric(text, errors="coerce")
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    wrong = given & ~fits(values)
    values[wrong] = np.nan
    return wrong, pd.Series(values).astype("Float64").astype(dtype).array, rule


def _as_text(cells: pd.Series) -> pd.Series:
    """Return the cells as stripped text in NFC, the empty ones as missing."""
    if cells.dtype == bool:
        cells = cells.astype("Int8")  # True is 1
    text = cells.reset_index(drop=True).astype("string")
    if not is_plain_text(text):
        text = text.str.normalize("NFC").str.strip()
    return text.mask(text == "")


def _duplicate_ids(ids: pd.Series) -> list[tuple[int, str]]:
    given = ids.dropna()
    again = given[given.duplicated()]
    first = given[given.isin(again)].drop_duplicates()
    line = {image_id: row + 2 for row, image_id in _cells(first)}
    return [
        (row, f"image_id is in line {line[image_id]} already") for row, image_id in _cells(again)
    ]


def _cells(column: pd.Series) -> list[tuple[int, str]]:
    """Return the row and the text of each cell."""
    return list(zip(column.index.tolist(), column.tolist(), strict=True))


def _one_of(known: tuple[str, ...]) -> Callable[[pd.Series], Flags]:
    def fits(text: pd.Series) -> Flags:
        return np.asarray(text.isin(known).to_numpy(), dtype=np.bool_)

    return fits


def _is_integer(values: Cells, low: float) -> Flags:
    fitting: Flags = np.isfinite(values) & (values == np.rint(values)) & (values >= low)
    return fitting


TEXT_RULES = {
    "stain": (_one_of(STAINS), f"one of {', '.join(STAINS)}"),
    "split": (_one_of(SPLITS), f"one of {', '.join(SPLITS)}"),
}

NumberRule = tuple[Callable[[Cells], Flags], str, ExtensionDtype]

LABEL_RULE: NumberRule = (
    lambda v: np.isin(v, (0.0, 1.0)),
    "1, 0 or empty (unknown)",
    pd.Int8Dtype(),
)

NUMBER_RULES: dict[str, NumberRule] = {
    "mpp": (lambda v: np.isfinite(v) & (v > 0), "micrometres per pixel above 0", pd.Float64Dtype()),
    "x": (lambda v: _is_integer(v, -np.inf), "a whole number", pd.Int64Dtype()),
    "y": (lambda v: _is_integer(v, -np.inf), "a whole number", pd.Int64Dtype()),
    "width": (lambda v: _is_integer(v, 1), "a whole number of at least 1", pd.Int64Dtype()),
    "height": (lambda v: _is_integer(v, 1), "a whole number of at least 1", pd.Int64Dtype()),
    "fold": (lambda v: _is_integer(v, 0), "a whole number of at least 0", pd.Int64Dtype()),
}
