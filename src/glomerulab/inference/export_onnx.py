"""Export a run as ONNX: a folder that `predict` takes in the run's place, without torch."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from glomerulab.errors import CheckpointError
from glomerulab.files import make_folder, written_whole
from glomerulab.inference.detector import DETECTOR_FILE, is_detector
from glomerulab.inference.engine import probabilities_of
from glomerulab.inference.gates import GATES_FOLDER, has_gates, read_gates
from glomerulab.inference.onnx_engine import CARD_FILE, MODEL_FILE, ExportCard, OnnxEngine
from glomerulab.inference.torch_engine import TorchEngine

__all__ = ["MAX_DIFFERENCE", "export_onnx"]

MAX_DIFFERENCE = 1e-4
"""Between the probabilities of both engines; an export that differs more is not kept."""
N_CHECKED = 16


def export_onnx(run: Path, out: Path) -> float:
    """Write a run as ONNX, and check that it answers as torch does.

    Parameters
    ----------
    run : Path
        A run folder with its gates.
    out : Path
        Gets ``model.onnx``, ``card.json`` and ``gates/``; made if need be.

    Returns
    -------
    float
        Largest difference of a probability between torch and ONNX Runtime, over images of noise
        of every kind.

    Raises
    ------
    CheckpointError
        If the run has no gates, or the two engines differ.
    """
    if not has_gates(run):
        raise CheckpointError("has no gates yet; run `glomerulab gates RUN` first", where=str(run))
    read_gates(run)  # altered ones are not handed on
    engine = TorchEngine(run)
    make_folder(out)
    card = ExportCard(**engine.card.model_dump(), weights_sha256=engine.weights_sha256)
    with written_whole(out / MODEL_FILE) as temporary:
        _export(engine, temporary)
    with written_whole(out / CARD_FILE) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    shutil.copytree(run / GATES_FOLDER, out / GATES_FOLDER, dirs_exist_ok=True)
    if is_detector(run):
        shutil.copyfile(run / DETECTOR_FILE, out / DETECTOR_FILE)
    difference = _largest_difference(engine, OnnxEngine(out))
    if difference > MAX_DIFFERENCE:
        (out / MODEL_FILE).unlink()
        raise CheckpointError(
            f"ONNX answers differ from torch's by {difference:.2g} in probability; not exported",
            where=str(out),
        )
    return difference


def _export(engine: TorchEngine, path: Path) -> None:
    size = engine.card.input_size
    network = engine.network.cpu()
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own deprecated parts
        program = torch.onnx.export(
            network, (example,), dynamo=True, verbose=False, input_names=["images"],
            output_names=["logits", "features"], dynamic_shapes={"images": {0: "batch"}},
        )  # fmt: skip
    if program is None:
        raise CheckpointError("torch's exporter gave nothing", where=str(path))
    program.save(path)


def _largest_difference(one: TorchEngine, other: OnnxEngine) -> float:
    size, head = one.card.input_size, one.card.head
    rng = np.random.default_rng(0)
    images = [
        np.clip(rng.normal(rng.uniform(40, 240, 3), spread, (size, size, 3)), 0, 255)
        for spread in np.linspace(1, 80, N_CHECKED)
    ]
    batch = np.stack(images).astype(np.uint8)
    found = [probabilities_of(engine.answer(batch).logits, head) for engine in (one, other)]
    return float(np.abs(found[0] - found[1]).max())
