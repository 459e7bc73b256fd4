"""Open a trained model with the engine that its folder is made for."""

from pathlib import Path

from glomerulab.inference.engines.base import Engine
from glomerulab.runtime.sealing import is_crossval, require_run_folder

__all__ = ["open_engine"]


def open_engine(folder: Path) -> Engine:
    """Open a run folder, its export, or a cross-validation, whose models are averaged."""
    require_run_folder(folder)
    if is_crossval(folder):
        from glomerulab.inference.engines.ensemble import EnsembleEngine

        return EnsembleEngine(folder)
    if (folder / "model.onnx").is_file():
        from glomerulab.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine(folder)
    from glomerulab.inference.engines.torch_engine import TorchEngine

    return TorchEngine(folder)
