"""Predictions of any model, from a table of another program.

The table has one row per image: probabilities of the labels or the predicted label, and the true
labels, in the file itself or in another one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.leakage import look_alike_patients
from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.cohort.schema import MANIFEST_COLUMNS, SPLITS, STAINS
from glomerulab.errors import ManifestError, PredictionsError
from glomerulab.evaluation.prediction_columns import (
    LOGIT,
    PROBABILITY,
    ROUNDED,
    Source,
    check_mapping,
    infer_taxonomy,
    label_column,
    line_of,
    matched_columns,
    output_columns,
    read_numbers,
    read_source,
    score_column,
    true_labels,
)
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.predictions import (
    SUM_TOLERANCE,
    Head,
    predictions_table,
    validate_predictions,
)
from glomerulab.runtime.messages import count_noun
from glomerulab.taxonomy import Taxonomy

__all__ = ["ForeignPredictions", "Values", "read_prediction_file"]

Values = Literal["probabilities", "percent", "logits"]
FloatArray = npt.NDArray[np.float64]

SPLIT_NAMES = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
}


@dataclass(frozen=True)
class ForeignPredictions:
    """The tables of a run whose model is not known, and how the file was read."""

    tables: RunTables
    notices: tuple[str, ...]
    """Decisions of the reader, in one sentence each."""


def read_prediction_file(
    path: Path,
    *,
    out: Path,
    taxonomy: Taxonomy | None = None,
    columns: Mapping[str, str] | None = None,
    truth: Path | None = None,
    values: Values | None = None,
) -> ForeignPredictions:
    """Read the predictions of any model.

    Parameters
    ----------
    path : Path
        A CSV, see `glomerulab.runtime.tables`. Columns: the image; true labels as text, as numbers
        or as one column per label; probabilities or logits, one column per label (``prob_x``,
        ``p_x``, ``x`` and the like), or the predicted label.
    out : Path
        Folder of the report that is to be written; nothing is written here.
    taxonomy : Taxonomy, optional
        By default the labels of the table, in its order.
    columns : mapping of str to str, optional
        Name here (see `OURS`) to name in the table, where it is not recognised.
    truth : Path, optional
        Table of the true labels, joined by image.
    values : {"probabilities", "percent", "logits"}, optional
        By default recognised; logits only by the name of their columns.

    Returns
    -------
    ForeignPredictions
        Images without a split are of the test part.

    Raises
    ------
    PredictionsError
        If a column is missing, or a value cannot be read; the message names the line.
    """
    mapping = dict(columns or {})
    answers = read_source(path, mapping)
    true = answers
    if truth is not None:
        true = read_source(truth, {})
        own = {ours: theirs for ours, theirs in mapping.items() if theirs not in answers.cells}
        answers = read_source(path, {n: c for n, c in mapping.items() if n not in own})
        true = read_source(truth, own)
        answers.named.pop("label", None)
        true.named.pop("predicted", None)
    check_mapping(mapping, (answers, true))
    notices: list[str] = []
    if taxonomy is None:
        taxonomy = infer_taxonomy(answers, true, notices)
    outputs = output_columns(answers, taxonomy, is_alone=answers is true)
    labels = true_labels(true, taxonomy, set(outputs.values()), notices)
    ids = _image_ids(answers, notices)
    rows = _rows(answers, ids, taxonomy, {*outputs.values()})
    if answers is not true:
        labels, rows = _joined(labels, rows, true, ids=ids, taxonomy=taxonomy, notices=notices)
    else:
        _tell_unlabelled(labels, notices)
    head, probabilities, has_probabilities = _outputs(
        answers, outputs, labels, taxonomy, values=values, notices=notices
    )
    if "split" not in rows or rows["split"].isna().all():
        rows["split"] = "test"
    for k, label_id in enumerate(taxonomy.label_ids):
        rows[label_id] = pd.array([None if np.isnan(v) else int(v) for v in labels[:, k]], "Int8")
    try:
        manifest = manifest_from_rows(rows, folder=path.parent, taxonomy=taxonomy)
    except ManifestError as error:
        raise PredictionsError(error.message, where=str(path)) from error
    notices += [
        f"patients {' and '.join(map(repr, names))} count as different though their ids look "
        "alike; give them one id if they are one patient, or the intervals are too narrow"
        for names in look_alike_patients(manifest.table)[:1]
    ]
    table = predictions_table(manifest.table, probabilities, taxonomy)
    validate_predictions(table, taxonomy, head=head, where=str(path))
    tables = RunTables(
        out,
        head,
        table,
        manifest,
        pd.DataFrame(),
        {},
        "",
        {},
        source=path,
        has_probabilities=has_probabilities,
    )
    return ForeignPredictions(tables, tuple(notices))


def _outputs(
    answers: Source,
    columns: Mapping[str, str],
    labels: FloatArray,
    taxonomy: Taxonomy,
    *,
    values: Values | None,
    notices: list[str],
) -> tuple[Head, FloatArray, bool]:
    """Return the head, probabilities or else calls (n, K), and whether they are probabilities."""
    is_several = not _are_single(labels)
    called = _called(answers, taxonomy, notices, is_several=is_several)
    if columns:
        raw = read_numbers(answers, list(columns.values()), required=True)
        are_logits = values == "logits" or (values is None and _are_logits(columns))
        scale = "logits" if are_logits else values
        head, probabilities = _scaled(raw, labels, scale, answers, notices)
        if len(columns) == 1 and columns.keys() == {taxonomy.label_ids[0]}:
            probabilities = probabilities[:, ::-1]
        _tell_disagreement(probabilities, called, head, notices)
        return head, probabilities, True
    if called is None:
        raise PredictionsError(_nothing_found(answers, taxonomy), where=answers.where)
    if is_several or not _are_single(called):
        scores = None
    else:
        scores = _scores_of_two(answers, taxonomy, called, notices)
    if scores is not None:
        return "softmax", scores, True
    notices.append(
        "the table has no probability of each label, so areas under curves and calibration are "
        "not defined"
    )
    return "softmax" if _are_single(called) and not is_several else "sigmoid", called, False


def _called(
    source: Source, taxonomy: Taxonomy, notices: list[str], *, is_several: bool
) -> FloatArray | None:
    """Return the predicted labels, shape (n, K), 1 or 0; None without them."""
    column = source.column("predicted")
    if column is None:
        return None
    called = label_column(column, source, taxonomy, notices, is_several=is_several)
    empty = np.isnan(called).any(axis=1)
    if empty.any() and not matched_columns(source, PROBABILITY):
        row = int(np.flatnonzero(empty)[0])
        cell = column.iloc[row]
        is_what = "is empty" if pd.isna(cell) else f"{str(cell)!r} is not a label"
        way_out = "write none if the model called no label" if is_several else "state what it said"
        raise PredictionsError(
            f"{line_of(source, row)}: the predicted label {is_what}; {way_out}, or remove the "
            "image",
            where=source.where,
        )
    return called


def _scores_of_two(
    source: Source, taxonomy: Taxonomy, called: FloatArray, notices: list[str]
) -> FloatArray | None:
    """Return probabilities, shape (n, 2), from one column beside the predicted label of two.

    It is the probability of the predicted label if none is below 0.5, and else that of the label
    whose images have the higher ones.
    """
    name = score_column(source)
    if name is None:
        return None
    score = read_numbers(source, [name], required=True)[:, 0]
    first, second = (score[called[:, k] == 1] for k in (0, 1))
    is_of_two = called.shape[1] == 2 and len(first) > 0 and len(second) > 0
    if not is_of_two or score.min() < 0 or score.max() > 1:
        notices.append(f"column {name!r} is not the probability of each label, and is not used")
        return None
    if score.min() >= 0.5:
        notices.append(f"column {name!r} is read as the probability of the predicted label")
        second_is = np.where(called[:, 1] == 1, score, 1.0 - score)
    elif first.max() <= second.min() or second.max() <= first.min():
        k = int(first.max() <= second.min())
        notices.append(f"column {name!r} is read as the probability of {taxonomy.label_ids[k]}")
        second_is = score if k else 1.0 - score
    else:
        notices.append(
            f"column {name!r} does not go with the predicted labels, and is not used; give "
            f"--column probability_{taxonomy.label_ids[1]}={name} to evaluate it in their place"
        )
        return None
    probabilities = np.stack([1.0 - second_is, second_is], axis=1)
    _tell_disagreement(probabilities, called, "softmax", notices)
    return probabilities


def _tell_unlabelled(labels: FloatArray, notices: list[str]) -> None:
    n_unknown = int(np.isnan(labels).all(axis=1).sum())
    if n_unknown:
        notices.append(f"{count_noun(n_unknown, 'image')} without a true label are left out")


def _image_ids(source: Source, notices: list[str]) -> list[str]:
    column = source.column("image_id")
    if column is None:
        column = source.column("image_path")
    if column is None:
        notices.append("the table has no column of images; they are numbered by line")
        return [f"line {line + 2}" for line in source.cells.index]
    missing = column.isna().to_numpy(dtype=bool)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise PredictionsError(
            f"{line_of(source, row)}: {column.name} is empty", where=source.where
        )
    twice = column.duplicated(keep=False).to_numpy(dtype=bool)
    if twice.any():
        first, second = np.flatnonzero((column == column[twice].iloc[0]).to_numpy(dtype=bool))[:2]
        raise PredictionsError(
            f"{line_of(source, int(second))}: image {column.iloc[second]!r} is in line "
            f"{source.cells.index[first] + 2} already; keep one row per image, or "
            "name a column in which the images differ, with --column image_id=THEIRS",
            where=source.where,
        )
    return [str(cell) for cell in column]


def _rows(source: Source, ids: Sequence[str], taxonomy: Taxonomy, used: set[str]) -> pd.DataFrame:
    """Return rows of a manifest without labels; further columns are kept, for subgroups."""
    paths = source.column("image_path")
    rows = pd.DataFrame({"image_id": ids, "image_path": ids if paths is None else list(paths)})
    for name in ("patient_id", "slide_id", "stain", "split"):
        column = source.column(name)
        if column is not None:
            rows[name] = pd.array(list(column), dtype="string")
    if "stain" in rows:
        rows["stain"] = rows["stain"].map(_stain, na_action="ignore")
    if "split" in rows:
        rows["split"] = [
            cell if pd.isna(cell) else _split(str(cell), source, row)
            for row, cell in enumerate(rows["split"])
        ]
    taken = {*used, *rows.columns, *taxonomy.label_ids}
    for name in source.free():
        # Those of a manifest would be checked by its rules, and mean something else elsewhere.
        is_fold = name == "fold" and source.cells[name].str.fullmatch(r"\d+").all()
        if name not in taken and (name not in MANIFEST_COLUMNS or is_fold):
            rows[name] = pd.array(list(source.cells[name]), dtype="string")
    return rows


def _joined(
    labels: FloatArray,
    rows: pd.DataFrame,
    true: Source,
    *,
    ids: Sequence[str],
    taxonomy: Taxonomy,
    notices: list[str],
) -> tuple[FloatArray, pd.DataFrame]:
    """Bring the true labels, and patients and the like, into the order of the predictions."""
    true_ids = _image_ids(true, [])
    place = {image_id: row for row, image_id in enumerate(true_ids)}
    if not place.keys() & set(ids):  # file names of one, ids of the other
        place = {_stem(image_id): row for row, image_id in enumerate(true_ids)}
        ids = [_stem(image_id) for image_id in ids]
    at = np.array([place.get(image_id, -1) for image_id in ids])
    if len(place) < len(true_ids) or (at < 0).all() or len(set(ids)) < len(ids):
        raise PredictionsError(
            f"the two tables cannot be joined by image: one has {ids[0]!r}, {true.where} has "
            f"{true_ids[0]!r}; name the columns with --column image_id=THEIRS",
            where=true.where,
        )
    aligned = np.where((at >= 0)[:, None], labels[at], np.nan)
    without, unused = int((at < 0).sum()), len(true_ids) - int((at >= 0).sum())
    if without:
        notices.append(f"{count_noun(without, 'image')} without a true label are left out")
    if unused:
        notices.append(
            f"{true.where} has {count_noun(unused, 'image')} that the model did not predict; "
            "scores are over the others"
        )
    other = _rows(true, true_ids, taxonomy, set())
    for name in other:
        if name not in rows:
            rows[name] = [other[name].iloc[row] if row >= 0 else pd.NA for row in at]
    return aligned, rows


def _scaled(
    raw: FloatArray,
    labels: FloatArray,
    values: Values | None,
    source: Source,
    notices: list[str],
) -> tuple[Head, FloatArray]:
    """Return the head and probabilities from 0 to 1, shape (n, K)."""
    one_column = raw.shape[1] == 1
    if values == "logits":
        single = _are_single(labels)
        function = "softmax" if single and not one_column else "sigmoid"
        notices.append(f"logits became probabilities by {function}")
        if function == "softmax":
            shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
            return "softmax", shifted / shifted.sum(axis=1, keepdims=True)
        raw = 1.0 / (1.0 + np.exp(-raw))
    elif values == "percent" or (values is None and _is_percent(raw)):
        if values is None:
            notices.append("the probabilities are in per cent and were divided by 100")
        raw = raw / 100.0
    outside = ~((raw >= 0) & (raw <= 1))
    if outside.any():
        row = int(np.flatnonzero(outside.any(axis=1))[0])
        raise PredictionsError(
            f"{line_of(source, row)}: {raw[row][outside[row]][0]:g} is not a probability from 0 to "
            f"1 (the values are {raw.min():g} to {raw.max():g}, and do not sum to 100 per image); "
            "give --values percent for per cent, or --values logits for outputs before softmax or "
            "sigmoid",
            where=source.where,
        )
    if one_column:
        return "softmax", np.hstack([1.0 - raw, raw])
    sums = raw.sum(axis=1)
    if np.abs(sums - 1.0).max() <= ROUNDED:
        if np.abs(sums - 1.0).max() > SUM_TOLERANCE:
            notices.append("the probabilities are rounded and were scaled to sum to 1")
            raw = raw / sums[:, None]
        return "softmax", raw
    notices.append(
        "the probabilities of an image do not sum to 1, so each label is evaluated by itself, "
        "called present from 0.5 on"
    )
    return "sigmoid", raw


def _is_percent(raw: FloatArray) -> bool:
    """Whether values are from 0 to 100 and those of each image sum to 100."""
    if raw.min() < 0 or raw.max() > 100 or raw.max() <= 1:
        return False
    return raw.shape[1] > 1 and bool(np.abs(raw.sum(axis=1) - 100.0).max() <= 100 * ROUNDED)


def _tell_disagreement(
    probabilities: FloatArray, called: FloatArray | None, head: Head, notices: list[str]
) -> None:
    if called is None:
        return
    calls = probabilities >= 0.5
    if head == "softmax":
        calls = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)] == 1
    differ = int(((called == 1) != calls).any(axis=1).sum())
    if differ:
        notices.append(
            f"the predicted labels of {count_noun(differ, 'image')} are not those of the "
            "probabilities; the probabilities are evaluated"
        )


def _are_single(labels: FloatArray) -> bool:
    """Whether every image with known labels has exactly one."""
    known = labels[~np.isnan(labels).any(axis=1)]
    return bool((known.sum(axis=1) == 1).all())


def _are_logits(outputs: Mapping[str, str]) -> bool:
    return bool(outputs) and all(
        LOGIT.fullmatch(name) or re.fullmatch(r"logits?", name, re.IGNORECASE)
        for name in outputs.values()
    )


def _split(text: str, source: Source, row: int) -> str:
    key = re.sub(r"[\W_]*(?:set|split|data)$", "", text.casefold())
    split = SPLIT_NAMES.get(key, key)
    if split not in SPLITS:
        raise PredictionsError(
            f"{line_of(source, row)}: the part {text!r} is not one of {', '.join(SPLITS)}; rename "
            f"the parts, or the column {source.named['split']!r} if it holds something else",
            where=source.where,
        )
    return split


def _stain(text: str) -> str:
    key = re.sub(r"[^a-z]+", "", text.casefold())
    return next((s for s in STAINS if re.sub(r"[^a-z]+", "", s.casefold()) == key), "other")


def _stem(image_id: str) -> str:
    return PurePosixPath(image_id.replace("\\", "/")).stem


def _nothing_found(source: Source, taxonomy: Taxonomy) -> str:
    names = ", ".join(repr(str(name)) for name in source.cells)
    first = taxonomy.label_ids[0]
    return (
        f"the table has no predictions that are recognised, only {names}; name the columns with "
        f"--column predicted=THEIRS, or --column probability_{first}=THEIRS and so on"
    )
