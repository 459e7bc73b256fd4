"""``glomerulab export``: a run as ONNX."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


class ExportFormat(StrEnum):
    """Formats a model can be exported to."""

    ONNX = "onnx"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder with its gates.")],
    *,
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="onnx.")
    ] = ExportFormat.ONNX,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default onnx/ in the run folder.")
    ] = None,
) -> None:
    """Write a folder that `predict --model` takes in the run's place, and that needs no torch.

    Its answers are compared with torch's before it is kept. Research use only.

    Example: glomerulab export run --format onnx
    """
    from glomerulab.inference.export_onnx import export_onnx

    del file_format  # there is one
    folder = out or run / "onnx"
    difference = export_onnx(run, folder)
    typer.echo(f"{folder}: probabilities differ from torch's by {difference:.1g} at most")
    typer.echo("Research use only.")
