"""Tables in Parquet, checked before they are loaded."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glomerulab.errors import GlomerulabError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["read_parquet"]

MAX_ROWS = 10_000_000
"""A file can state any number in a few bytes."""
PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def read_parquet(
    path: Path,
    *,
    name: str,
    error: type[GlomerulabError],
    choose: Callable[[list[str]], list[str]] = list,
) -> "pd.DataFrame":
    """Read a Parquet file of text, numbers, dates and switches, or of lists of numbers.

    Parameters
    ----------
    name : str
        As messages name it, such as ``manifest``.
    error : type
        Raised if the file cannot be read, is too large for a table, or has two columns of one name
        or a column of another kind.
    choose : callable, optional
        Takes the names of the columns in the file, and returns those to read.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.is_file():  # not the folder of a partitioned table
            metadata = pq.read_metadata(path)
            names = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
            _check_parquet(names, metadata.num_rows, name, error, str(path))
        data = pq.ParquetDataset(path)
        names = [one for one in data.schema.names if not PANDAS_INDEX.fullmatch(one)]
        kept = choose(names)
        table = data.read(columns=kept)
        table.validate(full=True)  # text may not be UTF-8
        table = table.cast(pa.schema([_readable(table.field(one)) for one in kept]))
        # The names of types that pandas adds may be damaged, and are not needed.
        texts = {pa.string(): pd.StringDtype(), pa.large_string(): pd.StringDtype()}
        frame: pd.DataFrame = table.to_pandas(
            ignore_metadata=True, integer_object_nulls=True, types_mapper=texts.get
        )
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure).strip() or "no memory"
        if isinstance(failure, FileNotFoundError):
            reason = "there is no such file; check its path"
        raise error(f"the {name} cannot be read: {reason}", where=str(path)) from failure
    return frame


def _check_parquet(
    names: Sequence[str], n_rows: int, name: str, error: type[GlomerulabError], where: str
) -> None:
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise error(f"the {name} has two columns {twice!r}; rename or remove one", where=where)
    if not 0 <= n_rows <= MAX_ROWS:
        raise error(
            f"the {name} states {n_rows:,} rows, more than the {MAX_ROWS:,} allowed; write it "
            "again if it is damaged, or divide it",
            where=where,
        )


def _readable(field: "pa.Field") -> "pa.Field":
    """Return a column as text or numbers; text that a program marked as bytes is UTF-8."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        kind = pa.large_string()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    inner = kind.value_type if is_list else kind
    if pa.types.is_nested(inner) or (is_list and not pa.types.is_floating(inner)):
        raise ValueError(f"column {field.name!r} holds {kind}, not text or numbers")
    return pa.field(field.name, kind)
