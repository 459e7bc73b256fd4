"""``glomerulab split``: divide a cohort into train, validation and test, or into folds."""

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

__all__ = ["split"]

if TYPE_CHECKING:
    import pandas as pd


class By(str, Enum):  # noqa: UP042 - typer shows a StrEnum's members by name
    """The unit that is never divided."""

    patient = "patient"
    image = "image"


def split(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Manifest to write, with the parts.")],
    by: Annotated[
        By, typer.Option(help="Unit that is never divided; the paper split by image.")
    ] = By.patient,
    ratios: Annotated[str, typer.Option(help="Train : validation : test.")] = "6:2:2",
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Assign K folds instead; images of the test part are left out."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same split.")] = 0,
    allow_near_duplicates: Annotated[
        Path | None,
        typer.Option(help="CSV image_id,other_image_id: pairs that may be in two parts."),
    ] = None,
    distinct: Annotated[
        list[str] | None,
        typer.Option(help="ID,ID: patients that are different though their ids look alike."),
    ] = None,
    near_duplicates: Annotated[
        bool, typer.Option(help="Search for nearly identical images in two parts.")
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read images.")] = 1,
) -> None:
    """Split a cohort by patient, balanced on labels and stains.

    Example: glomerulab split cohort/manifest.csv --out cohort/split.csv --ratios 6:2:2 --seed 1
    """
    from glomerulab.cohort.leakage import confirm_distinct, recheck_target_leaks
    from glomerulab.cohort.manifest import read_manifest, write_manifest
    from glomerulab.cohort.near_duplicates import check_near_duplicates, read_allowed_pairs
    from glomerulab.cohort.splits import (
        assign_folds,
        parts_table,
        split_by_image,
        split_by_patient,
        split_warnings,
    )
    from glomerulab.runtime.progress import show_progress

    parts = _parsed(ratios)
    cohort = read_manifest(manifest)
    if distinct:
        named = [name.strip() for ids in distinct for name in ids.split(",")]
        cohort = confirm_distinct(cohort, named)
    allowed = read_allowed_pairs(allow_near_duplicates) if allow_near_duplicates else frozenset()
    if folds is not None:
        column, divided = "fold", assign_folds(cohort, n_folds=folds, by=by.value, seed=seed)
    else:
        column = "split"
        divide = split_by_patient if by is By.patient else split_by_image
        divided = divide(cohort, ratios=parts, seed=seed)
    divided, leaks = recheck_target_leaks(divided) if column == "split" else (divided, {})
    if near_duplicates:
        check_near_duplicates(
            divided, column=column, allowed=allowed, n_workers=workers, track=show_progress
        )
    write_manifest(divided, out)
    typer.echo(_as_text(parts_table(divided, column=column), column))
    for warning in split_warnings(divided, column=column):
        typer.echo(f"warning: {warning}")
    for leak in leaks.values():
        typer.echo(
            f"warning: {leak}. Normalise the original images again, after this split", err=True
        )
    typer.echo(f"Written: {out}. Research use only.")


def _parsed(ratios: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in ratios.split(":"))
    except ValueError:
        raise typer.BadParameter(
            f"--ratios must be three numbers such as 6:2:2, got {ratios!r}"
        ) from None
    # Negated, so that NaN is refused.
    if not (0 < train < math.inf and 0 <= validation < math.inf and 0 <= test < math.inf):
        raise typer.BadParameter(
            f"--ratios must be above 0 for train and at least 0 for the others, got {ratios!r}"
        )
    return train, validation, test


def _as_text(table: "pd.DataFrame", column: str) -> str:
    return table.rename_axis(index=column).reset_index().to_string(index=False)
