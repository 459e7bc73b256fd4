"""Open a trained model with the engine that its folder is made for."""

from pathlib import Path

from glomerulab.inference.engines.base import Engine
from glomerulab.runtime.sealing import SealedFolder, is_crossval, open_model_folder

__all__ = ["open_engine"]


def open_engine(folder: Path | SealedFolder) -> Engine:
    """Open a run folder, its export, or a cross-validation, whose models are averaged."""
    files = open_model_folder(folder)
    if is_crossval(files.folder):
        from glomerulab.inference.engines.ensemble import EnsembleEngine

        return EnsembleEngine(files)
    if files.has("model.onnx"):
        from glomerulab.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine(files)
    from glomerulab.inference.engines.torch_engine import TorchEngine

    return TorchEngine(files)
