"""Table 1 of the paper: each model's scores beside what it costs, in CSV, Markdown and a page."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from glomerulab.evaluation.comparison import ModelCost
from glomerulab.predictions import Head
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_files import write_table_csv
from glomerulab.reports.run.score_tables import score_of
from glomerulab.reports.run.score_words import rounded, score_words
from glomerulab.runtime.files import atomic_write

__all__ = ["model_page_table", "model_table", "write_model_table"]

SCORES: dict[Head, tuple[str, ...]] = {
    "softmax": ("accuracy", "macro_f1", "macro_roc_auc"),
    "sigmoid": ("exact_match", "macro_f1", "macro_roc_auc"),
}
COSTS = ("Parameters", "MACs", "Training", "Inference", "Size")
NOTE = (
    "Under each score its 95 % interval over patients. MACs: multiplications with addition for one "
    "image of the input size. Training: images per second through the whole loop, median over the "
    "epochs. Inference: the best of several batches of 16 in memory. Size: of the weights' file."
)


def model_table(
    scores: Mapping[str, pd.DataFrame], costs: Mapping[str, ModelCost], *, head: Head
) -> pd.DataFrame:
    """Return one row per model.

    Parameters
    ----------
    scores : mapping of str to DataFrame
        By model, as `glomerulab.evaluation.scores.score_table` gives them.
    costs : mapping of str to ModelCost
        Of the same models.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    DataFrame
        ``model``, each score with ``_low`` and ``_high``, and the fields of `ModelCost`.
    """
    rows = []
    for name, table in scores.items():
        row: dict[str, object] = {"model": name}
        for score in SCORES[head]:
            found = score_of(table, score)
            row |= {
                score: found["value"],
                f"{score}_low": found["low"],
                f"{score}_high": found["high"],
            }
        cost = costs[name]
        row |= {field: getattr(cost, field) for field in ModelCost.__dataclass_fields__}
        rows.append(row)
    return pd.DataFrame(rows)


def model_page_table(table: pd.DataFrame, *, head: Head) -> Table:
    """Return the table as a page shows it."""
    columns = ("Model", *(score_words(score)[0] for score in SCORES[head]), *COSTS)
    rows = tuple(
        (str(row["model"]), *(_score(row, score) for score in SCORES[head]), *_costs(row))
        for row in (
            {str(key): value for key, value in one.items()} for one in table.to_dict("records")
        )
    )
    machines = ", ".join(sorted(set(table["machine"])))
    return Table("Scores and costs", columns, rows, note=f"{NOTE} Measured on: {machines}.")


def write_model_table(table: pd.DataFrame, folder: Path, *, head: Head, is_synthetic: bool) -> None:
    """Write ``table1.csv`` and ``table1.md``.

    Parameters
    ----------
    table : DataFrame
        See `model_table`.
    folder : Path
        Must exist.
    head : {"softmax", "sigmoid"}
    is_synthetic : bool
        Whether the images were rendered; the Markdown then says so.
    """
    write_table_csv(table, folder / "table1.csv")
    page = model_page_table(table, head=head)
    lines = [page.columns, tuple("---" for _ in page.columns), *page.rows]
    text = "\n".join(f"| {' | '.join(cells)} |".replace("\n", "<br>") for cells in lines)
    notice = "Synthetic images: this says nothing about patients. " if is_synthetic else ""
    with atomic_write(folder / "table1.md") as temporary:
        temporary.write_text(
            f"{text}\n\n{page.note} {notice}Research use only.\n", encoding="utf-8"
        )


def _score(row: Mapping[str, object], score: str) -> str:
    value, low, high = (float(str(row[score + end])) for end in ("", "_low", "_high"))
    interval = "" if math.isnan(low) else f"\n{low:.3f} to {high:.3f}"
    return f"{rounded(value)}{interval}"


def _costs(row: Mapping[str, object]) -> tuple[str, ...]:
    n_parameters, n_macs, training, inference, n_bytes = (
        float(str(row[name]))
        for name in (
            "n_parameters",
            "n_macs",
            "train_images_per_second",
            "inference_images_per_second",
            "n_bytes",
        )
    )
    return (
        f"{n_parameters / 1e6:.2f} M",
        f"{n_macs / 1e9:.2f} G\nat {row['input_size']} px",
        f"{training:.1f} img/s",
        f"{inference:.1f} img/s",
        f"{n_bytes / 1e6:.1f} MB",
    )
