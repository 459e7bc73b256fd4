"""Which columns of another program's table hold what: images, labels, probabilities."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.errors import PredictionsError, TaxonomyError
from glomerulab.runtime.tables import TableSchema, decimal_point, nfc, read_cells
from glomerulab.taxonomy import Label, Taxonomy

__all__ = [
    "LOGIT",
    "OURS",
    "PROBABILITY",
    "ROUNDED",
    "SCHEMA",
    "Source",
    "check_mapping",
    "infer_taxonomy",
    "label_column",
    "line_of",
    "matched_columns",
    "output_columns",
    "read_numbers",
    "read_source",
    "true_labels",
]

FloatArray = npt.NDArray[np.float64]

SCHEMA = TableSchema(
    "predictions table",
    ("image_id", "image_path", "patient_id", "slide_id", "stain", "split", "label", "predicted"),
    spellings={
        "image_id": ("image_name", "img_id", "img_name", "image", "img", "crop", "sample", "name"),
        "patient_id": ("subject", "patient_name"),
        "split": ("set", "dataset", "phase"),
        "label": (
            *("labels", "true_label", "true_labels", "true", "truth", "true_class", "y_true", "y"),
            *("ground_truth", "gt", "gt_label", "target", "targets", "actual", "reference"),
            *("class", "class_name", "diagnosis", "annotation", "label_true"),
        ),
        "predicted": (
            *("prediction", "predictions", "pred", "preds", "y_pred", "yhat", "predicted_label"),
            *("predicted_labels", "predicted_class", "pred_label", "pred_class", "call", "called"),
            *("label_pred", "output", "model_label", "decision"),
        ),
    },
    error=PredictionsError,
)
OURS = (*SCHEMA.columns, "label_<id>", "probability_<id>")
"""Names to the left of `=` in a mapping of columns."""

PROBABILITY = re.compile(
    r"(?:(?:probability|probabilities|proba|prob|p|softmax|sigmoid|score|conf|confidence"
    r"|y_prob|y_score|y_pred|predicted|prediction|pred)[\s_.:/-]+(?P<after>.+)"
    r"|(?P<before>.+?)[\s_.:/-]+(?:probability|proba|prob|p|score|softmax|sigmoid|pred)"
    r"|(?:probability|proba|prob|p|score|class|output)(?P<number>\d+))",
    re.IGNORECASE,
)
LOGIT = re.compile(
    r"(?:logits?[\s_.:/-]*(?P<after>.+)|(?P<before>.+?)[\s_.:/-]+logits?(?P<number>$))",
    re.IGNORECASE,
)
TRUTH = re.compile(
    r"(?:(?:label|true|truth|y_true|gt|target|actual|is)[\s_.:/-]+(?P<after>.+)"
    r"|(?P<before>.+?)[\s_.:/-]+(?:true|truth|gt|label|target|actual)(?P<number>$))",
    re.IGNORECASE,
)
STRICT = re.compile(r"(?:probability|proba|prob|logit|label)[\s_.:/-]", re.IGNORECASE)
"""Prefixes that nobody gives to a column of something else."""
POSITIVE = re.compile(
    r"(?:y_)?(?:prob(?:ability|a)?|score|p|conf(?:idence)?|logits?)", re.IGNORECASE
)
"""A single column of probabilities."""

SEPARATORS = re.compile(r"\s*[+;|,/]\s*")
"""Between several labels of one image."""
STRONG_SEPARATORS = re.compile(r"\s*[+;|]\s*")
"""Those that a name does not hold."""
NO_LABEL = {"", "none", "nan", "na", "n/a", "unknown", "?"}
"""What stands for no label, unless the taxonomy has a label of that name."""
POSITIVE_OF_TWO = {"true", "yes", "positive", "pos", "present"}
ROUNDED = 0.02
"""Probabilities of three digits may sum to 1 up to this."""


@dataclass(frozen=True)
class Source:
    """A table, and the names of its columns by ours."""

    cells: pd.DataFrame
    """Text, NA where empty; its index is the line in the file less 2."""
    separator: str
    named: dict[str, str]
    where: str

    def column(self, name: str) -> pd.Series | None:
        """Return a column by our name."""
        return self.cells[self.named[name]] if name in self.named else None

    def free(self) -> list[str]:
        """Return the columns that are not one of `SCHEMA`."""
        return [str(name) for name in self.cells if name not in self.named.values()]


def read_source(path: Path, mapping: Mapping[str, str]) -> Source:
    """Read a table and recognise its columns; `mapping` has ours to theirs."""
    table = read_cells(path, name="table", error=PredictionsError)
    cells = table.frame().dropna(how="all")
    if cells.empty:
        raise PredictionsError("the table has no rows", where=str(path))
    mapping = {ours: nfc(theirs) for ours, theirs in mapping.items() if nfc(theirs) in cells}
    free = [str(name) for name in cells if name not in mapping.values()]
    found = SCHEMA.spelling(free)
    named = {ours: theirs for theirs, ours in found.items() if ours not in mapping}
    # A column of shares called "prediction" holds probabilities.
    if "predicted" in named and _is_fraction(cells[named["predicted"]], table.separator):
        del named["predicted"]
    return Source(cells, table.separator, named | mapping, str(path))


def check_mapping(mapping: Mapping[str, str], sources: Sequence[Source]) -> None:
    """Check that both sides of every mapping exist."""
    for ours, theirs in mapping.items():
        if ours not in SCHEMA.columns and not ours.startswith(("label_", "probability_")):
            raise PredictionsError(
                f"--column {ours}={theirs}: {ours!r} is not a column here; known are "
                f"{', '.join(OURS)}"
            )
        if all(nfc(theirs) not in one.cells for one in sources):
            names = dict.fromkeys(str(name) for one in sources for name in one.cells)
            known = ", ".join(map(repr, names))
            raise PredictionsError(
                f"--column {ours}={theirs}: the table has no column {theirs!r}, only {known}",
                where=sources[0].where,
            )


def infer_taxonomy(answers: Source, true: Source, notices: list[str]) -> Taxonomy:
    """Take the labels from the columns of probabilities, else from the true and called labels."""
    names = [ours.removeprefix("probability_") for ours in answers.named if _is_output(ours)]
    if not names:
        found = [list(matched_columns(answers, pattern)) for pattern in (PROBABILITY, LOGIT)]
        names = max(found, key=len)
    texts = _label_texts(answers, true)
    if len(names) < 2 and texts:
        bare = [name for name in answers.free() if _is_numeric(answers, name)]
        fitting = [name for name in bare if name.casefold() in {t.casefold() for t in texts}]
        sums = (
            read_numbers(answers, bare, required=False).sum(axis=1)
            if len(bare) > 1
            else np.zeros(1)
        )
        if fitting and any(np.allclose(sums, total, rtol=ROUNDED) for total in (1.0, 100.0)):
            fitting = bare  # also the labels that no image has
        names = fitting if len(fitting) > 1 else sorted(texts, key=_natural)
    if len(names) < 2:
        names = list(matched_columns(true, TRUTH))
    if all(re.fullmatch(r"\d+", name) for name in names) and names:
        largest = max(int(name) for name in names)
        names = [str(number) for number in range(min(map(int, names)) and 1, largest + 1)]
    if len(names) < 2:
        raise PredictionsError(
            "the labels cannot be told from the table; give them with --taxonomy, or name the "
            "columns, such as --column probability_crescent=THEIRS and --column label=THEIRS",
            where=answers.where,
        )
    notices.append(f"labels, taken from the table: {', '.join(names)}")
    return Taxonomy(Path(answers.where).stem, tuple(_label(n, k) for k, n in enumerate(names)))


def _label(name: str, number: int) -> Label:
    slug = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
    if not re.match(r"[a-z]", slug):
        slug = f"label_{slug or number}"
    shown = f"class {name}" if name.isdigit() else name
    return Label(id=slug, name=shown)


def _label_texts(answers: Source, true: Source) -> list[str]:
    """Return the labels that occur as text, without those that only join others."""
    columns = (answers.column("predicted"), true.column("label"))  # the latter's spelling is kept
    cells = [str(cell) for one in columns if one is not None for cell in one.dropna()]
    single = {cell.casefold() for cell in cells if not SEPARATORS.search(cell)}
    texts = {
        text.casefold(): text
        for cell in cells
        for text in _parts(cell, lambda name: name.casefold() in single)
    }
    is_several = any(
        len(_parts(cell, lambda name: name.casefold() in single)) > 1 for cell in cells
    )
    # A grade may be called "none"; beside joined labels it is the absence of all.
    not_labels = NO_LABEL if is_several else NO_LABEL - {"none"}
    return [text for key, text in sorted(texts.items()) if key not in not_labels]


def _parts(cell: str, is_known: Callable[[str], bool]) -> list[str]:
    """Split a cell into labels; ``III/IV`` is one label unless ``III`` and ``IV`` are known."""
    parts = []
    for part in [cell] if is_known(cell) else STRONG_SEPARATORS.split(cell):
        smaller = SEPARATORS.split(part)
        parts += smaller if not is_known(part) and all(map(is_known, smaller)) else [part]
    return parts


def matched_columns(source: Source, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the label in the name of each numeric column that fits a pattern, and the column."""
    found = {}
    for name in source.free():
        match = pattern.fullmatch(name)
        if match and _is_numeric(source, name):
            label = match["after"] or match["before"] or match["number"]
            found[label.strip()] = name
    return found


def output_columns(source: Source, taxonomy: Taxonomy, *, is_alone: bool) -> dict[str, str]:
    """Return the column of each label's probability or logit, or none."""
    stated = {o.removeprefix("probability_"): c for o, c in source.named.items() if _is_output(o)}
    by_name = {name: name for name in source.free() if _is_numeric(source, name)}
    choices = (
        stated,
        matched_columns(source, PROBABILITY),
        matched_columns(source, LOGIT),
        by_name
        if not is_alone or "label" in source.named or matched_columns(source, TRUTH)
        else {},
    )
    for found in choices:
        columns = _by_label(found, taxonomy, source, is_strict=found is stated)
        if columns and len(columns) == len(taxonomy.label_ids):
            return {label_id: columns[label_id] for label_id in taxonomy.label_ids}
        lacking = [label_id for label_id in taxonomy.label_ids if label_id not in columns]
        if columns and found is not by_name:
            if len(lacking) == 1 and len(taxonomy.label_ids) == 2:
                return columns  # the other label has the rest
            raise PredictionsError(
                f"the table has no probability of {', '.join(lacking)}; name its column with "
                f"--column probability_{lacking[0]}=THEIRS",
                where=source.where,
            )
    alone, positive = score_column(source), positive_label(taxonomy)
    if alone is not None and len(taxonomy.label_ids) == 2 and "predicted" not in source.named:
        if positive is not None:
            return {positive: alone}
        first, second = taxonomy.label_ids
        raise PredictionsError(
            f"column {alone!r} has one number per image, and which label it is the probability of "
            f"cannot be told; give --column probability_{first}={alone} or --column "
            f"probability_{second}={alone}",
            where=source.where,
        )
    return {}


def score_column(source: Source) -> str | None:
    """Return the only numeric column that is called probability, score or the like."""
    alone = [n for n in source.free() if POSITIVE.fullmatch(n) and _is_numeric(source, n)]
    return alone[0] if len(alone) == 1 else None


def positive_label(taxonomy: Taxonomy) -> str | None:
    """Return the label of two that a single probability is of, if their names say so."""
    if set(taxonomy.label_ids) == {"label_0", "label_1"}:
        return "label_1"
    found = [label_id for label_id in taxonomy.label_ids if label_id in POSITIVE_OF_TWO]
    return found[0] if len(found) == 1 and len(taxonomy.label_ids) == 2 else None


def _by_label(
    found: Mapping[str, str], taxonomy: Taxonomy, source: Source, *, is_strict: bool
) -> dict[str, str]:
    """Return the columns by label id; names outside the taxonomy are refused or ignored."""
    columns = {}
    for name, column in found.items():
        label_id = _find(name, taxonomy)
        if label_id is not None:
            columns[label_id] = column
        elif is_strict or STRICT.match(column):
            known = ", ".join(taxonomy.label_ids)
            raise PredictionsError(
                f"column {column!r} is of the label {name!r}, which the taxonomy lacks (it has "
                f"{known}); map it with --column probability_ID={column}, or give another "
                "--taxonomy",
                where=source.where,
            )
    return columns


def _find(name: str, taxonomy: Taxonomy) -> str | None:
    """Return the id of a label by id, name, or spelling; by number where no label is called so."""
    try:
        return taxonomy.find(name).id
    except TaxonomyError:
        key = re.sub(r"[\W_]+", "", name).casefold()
        for label in taxonomy.labels:
            if key in {re.sub(r"[\W_]+", "", text).casefold() for text in (label.id, label.name)}:
                return label.id
    if re.fullmatch(r"[0-9]{1,6}", name) and int(name) < len(taxonomy.label_ids):
        return taxonomy.label_ids[int(name)]
    return None


def true_labels(
    source: Source, taxonomy: Taxonomy, outputs: set[str], notices: list[str]
) -> FloatArray:
    """Return the true labels, shape (n, K): 1, 0, or NaN where unknown."""
    stated = {o.removeprefix("label_"): c for o, c in source.named.items() if _is_truth(o)}
    for found in (stated, matched_columns(source, TRUTH)):
        columns = _by_label(found, taxonomy, source, is_strict=found is stated)
        if columns:
            return _flags(source, columns, taxonomy)
    column = source.column("label")
    if column is not None:
        return label_column(column, source, taxonomy, notices)
    bare = {name: name for name in source.free() if name not in outputs}
    columns = _by_label(bare, taxonomy, source, is_strict=False)
    if columns:
        return _flags(source, columns, taxonomy)
    raise PredictionsError(
        "the table has no true labels; name their column with --column label=THEIRS, or give them "
        "with --truth LABELS.csv",
        where=source.where,
    )


def _flags(source: Source, columns: Mapping[str, str], taxonomy: Taxonomy) -> FloatArray:
    """Read one column per label; labels without a column are unknown."""
    missing = [label_id for label_id in taxonomy.label_ids if label_id not in columns]
    if missing:
        raise PredictionsError(
            f"the table has true labels, but none for {', '.join(missing)}; name the column with "
            f"--column label_{missing[0]}=THEIRS",
            where=source.where,
        )
    flags = read_numbers(
        source, [columns[label_id] for label_id in taxonomy.label_ids], required=False
    )
    wrong = ~(np.isnan(flags) | np.isin(flags, (0.0, 1.0)))
    if wrong.any():
        row, k = (int(place[0]) for place in np.nonzero(wrong))
        raise PredictionsError(
            f"{line_of(source, row)}: the true label {columns[taxonomy.label_ids[k]]!r} must be 1, "
            f"0 or empty, got {flags[row, k]:g}",
            where=source.where,
        )
    return flags


def label_column(
    column: pd.Series,
    source: Source,
    taxonomy: Taxonomy,
    notices: list[str],
    *,
    is_several: bool = False,
) -> FloatArray:
    """Read a column of label names or numbers, several joined by ``+``, ``;``, ``|`` or ``,``.

    The word "none" is the absence of every label where images have several (`is_several`, or in
    this column), else an unknown label, unless the taxonomy has a label of that name.
    """
    first = _first_number(column, source, taxonomy, notices)
    texts = ["" if pd.isna(cell) else str(cell) for cell in column]
    found = [_labels_of(text, taxonomy, first) for text in texts]
    is_several = is_several or any(one is not None and len(one) > 1 for one in found)
    labels = np.full((len(column), len(taxonomy.label_ids)), np.nan)
    place = {label_id: k for k, label_id in enumerate(taxonomy.label_ids)}
    for row, (text, one) in enumerate(zip(texts, found, strict=True)):
        if one is None:
            if is_several and text.casefold() == "none":
                labels[row] = 0.0
            continue
        labels[row] = 0.0
        for name, label_id in one:
            if label_id is None:
                known = ", ".join(taxonomy.label_ids)
                raise PredictionsError(
                    f"{line_of(source, row)}: the taxonomy lacks the label {name!r} of column "
                    f"{column.name!r} (it has {known}); give another --taxonomy, or rename it",
                    where=source.where,
                )
            labels[row, place[label_id]] = 1.0
    return labels


def _labels_of(
    text: str, taxonomy: Taxonomy, first: int | None
) -> list[tuple[str, str | None]] | None:
    """Return the labels in a cell as written and by id; None where it has none."""
    if text.casefold() in NO_LABEL and (not text or _find(text, taxonomy) is None):
        return None
    if first is not None:
        return [(text, taxonomy.label_ids[int(float(text)) - first])]
    names = _parts(text, lambda name: _find(name, taxonomy) is not None)
    return [(name, _find(name, taxonomy)) for name in names]


def _first_number(
    column: pd.Series, source: Source, taxonomy: Taxonomy, notices: list[str]
) -> int | None:
    """Return the number of the first label where labels are numbers, None where they are names."""
    texts = {str(cell) for cell in column.dropna() if str(cell).casefold() not in NO_LABEL}
    if not texts or any(not re.fullmatch(r"\d+(?:\.0+)?", text) for text in texts):
        return None
    numbers = {int(float(text)) for text in texts}
    names = {label.name for label in taxonomy.labels}
    if {f"class {number}" for number in numbers} <= names:
        return int(min(int(name.removeprefix("class ")) for name in names))
    size = len(taxonomy.label_ids)
    first = 1 if min(numbers) >= 1 and max(numbers) == size else 0
    if max(numbers) - first >= size:
        raise PredictionsError(
            f"column {column.name!r} has the label number {max(numbers)}, but the taxonomy has "
            f"{size} labels ({', '.join(taxonomy.label_ids)})",
            where=source.where,
        )
    listed = ", ".join(f"{k + first} = {one}" for k, one in enumerate(taxonomy.label_ids))
    notices.append(f"column {column.name!r} has numbers, read as {listed}")
    return first


def read_numbers(source: Source, columns: Sequence[str], *, required: bool) -> FloatArray:
    """Return columns as numbers, shape (n, len(columns)); a per cent sign is ignored."""
    arrays = []
    for name in columns:
        text = source.cells[name].map(
            lambda cell: decimal_point(str(cell).rstrip("% "), source.separator), na_action="ignore"
        )
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        given = source.cells[name].notna().to_numpy(dtype=bool)
        wrong = ~np.isfinite(numbers) & (given | required)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            cell = source.cells[name].iloc[row]
            problem = f"is not a number: {cell!r}" if given[row] else "is empty"
            raise PredictionsError(f"{line_of(source, row)}: {name} {problem}", where=source.where)
        arrays.append(numbers)
    return np.stack(arrays, axis=1)


def _is_numeric(source: Source, name: str) -> bool:
    """Whether most of a column is numbers; a bad cell is then an error."""
    cells = source.cells[name].dropna()
    text = cells.map(lambda cell: decimal_point(str(cell).rstrip("% "), source.separator))
    return len(cells) > 0 and bool(pd.to_numeric(text, errors="coerce").notna().mean() > 0.5)


def _is_fraction(cells: pd.Series, separator: str) -> bool:
    text = cells.dropna().map(lambda cell: decimal_point(str(cell), separator))
    numbers = pd.to_numeric(text, errors="coerce")
    return len(numbers) > 0 and bool(numbers.notna().all() and (numbers % 1 != 0).any())


def _is_output(ours: str) -> bool:
    return ours.startswith("probability_")


def _is_truth(ours: str) -> bool:
    return ours.startswith("label_")


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (10**9, text.casefold())


def line_of(source: Source, row: int) -> str:
    """Name a row by its line in the file."""
    return f"line {source.cells.index[row] + 2}"
