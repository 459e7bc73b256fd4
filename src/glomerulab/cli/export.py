"""``glomerulab export``: a run as ONNX."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ExportFormat(StrEnum):
    """Export formats."""

    ONNX = "onnx"


class ExportPrecision(StrEnum):
    """Numeric precision of the exported network."""

    FLOAT32 = "float32"
    INT8 = "int8"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder with its calibration.")],
    *,
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="onnx.")
    ] = ExportFormat.ONNX,
    precision: Annotated[
        ExportPrecision,
        typer.Option(help="float32, or int8: faster, and its loss is measured and printed."),
    ] = ExportPrecision.FLOAT32,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; by default onnx/ in the run folder, or onnx-int8/."),
    ] = None,
) -> None:
    """Write a folder that `predict --model` takes in place of the run, and that needs no torch.

    Its probabilities are compared with torch's before it is kept. Research use only.

    Example: glomerulab export run --format onnx

    Example: glomerulab export run --precision int8
    """
    from glomerulab.inference.onnx_export import export_onnx

    del file_format  # there is one
    is_int8 = precision is ExportPrecision.INT8
    folder = out or run / ("onnx-int8" if is_int8 else "onnx")
    done = export_onnx(run, folder, precision="int8" if is_int8 else "float32")
    difference = f"probabilities differ from torch's by {done.difference:.1g} at most"
    if done.loss is None:
        typer.echo(f"{folder}: {difference}")
    else:
        typer.echo(f"{folder}: int8; in float32 {difference}. In int8, {done.loss.text}.")
    typer.echo("Research use only.")
