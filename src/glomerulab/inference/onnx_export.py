"""Export a run as ONNX: a folder that `predict` takes in the run's place, without torch."""

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import CheckpointError, ImageFileError
from glomerulab.evaluation.eval_set import DECISION_THRESHOLD
from glomerulab.images import read_image
from glomerulab.inference.calibration import GATES_FOLDER, has_gates, read_gates
from glomerulab.inference.detector import DETECTOR_FILE, is_detector
from glomerulab.inference.engines.base import Engine, probabilities_of, stacked
from glomerulab.inference.engines.onnx_engine import (
    CARD_FILE,
    MODEL_FILE,
    ExportCard,
    IntegerLoss,
    OnnxEngine,
    Precision,
)
from glomerulab.inference.engines.torch_engine import AnswersWithFeatures, TorchEngine
from glomerulab.inference.onnx_quantize import write_int8
from glomerulab.predictions import Head
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.sealing import require_run_folder

__all__ = ["MAX_DIFFERENCE", "Exported", "export_onnx", "write_onnx"]

MAX_DIFFERENCE = 1e-4
"""Between the probabilities of both engines; an export that differs more is not kept."""
N_CHECKED = 16
N_CALIBRATION = 64
BATCH = 16


@dataclass(frozen=True)
class Exported:
    """How an export answers, beside torch."""

    difference: float
    """Largest difference of a probability in float32, over images of noise of every kind."""
    loss: IntegerLoss | None
    """What 8-bit integers change on held-out images; None for float32."""


def export_onnx(run: Path, out: Path, *, precision: Precision = "float32") -> Exported:
    """Write a run as ONNX, and check that it answers as torch does.

    Parameters
    ----------
    run : Path
        A run folder with its gates.
    out : Path
        Gets ``model.onnx``, ``card.json`` and ``gates/``; made if need be.
    precision : {"float32", "int8"}, default "float32"
        With int8 the run's images must still be there: training images calibrate it, and held-out
        images show what it loses.

    Returns
    -------
    Exported

    Raises
    ------
    CheckpointError
        If the run has no gates, the two engines differ in float32, or int8 lacks the images.
    """
    require_run_folder(run)
    if not has_gates(run):
        raise CheckpointError("has no gates yet; run `glomerulab gates RUN` first", where=str(run))
    read_gates(run)  # altered ones are not handed on
    engine = TorchEngine(run)
    make_folder(out)
    card = ExportCard(**engine.card.model_dump(), weights_sha256=engine.weights_sha256)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        work = Path(folder)
        _write_card(card, work)
        write_onnx(engine.network.cpu(), engine.card.input_size, work / MODEL_FILE)
        difference = _largest_difference(engine, OnnxEngine(work))
        if difference > MAX_DIFFERENCE:
            raise CheckpointError(
                f"ONNX answers differ from torch's by {difference:.2g} in probability; not kept",
                where=str(out),
            )
        if precision == "int8":
            card = _to_int8(run, engine, card, work)
        with atomic_write(out / MODEL_FILE) as temporary:
            shutil.copyfile(work / MODEL_FILE, temporary)
    _write_card(card, out)
    shutil.copytree(run / GATES_FOLDER, out / GATES_FOLDER, dirs_exist_ok=True)
    if is_detector(run):
        shutil.copyfile(run / DETECTOR_FILE, out / DETECTOR_FILE)
    return Exported(difference, card.loss)


def write_onnx(network: AnswersWithFeatures, input_size: int, path: Path) -> None:
    """Write a network as an ONNX graph from bytes to logits and features.

    Parameters
    ----------
    network : AnswersWithFeatures
        In evaluation mode, on the CPU.
    input_size : int
        Side of its images, px; the number of images of a batch is left open.
    path : Path

    Raises
    ------
    CheckpointError
        If torch cannot export it.
    """
    example = torch.zeros((2, input_size, input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own deprecated parts
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits", "features"],
            dynamic_shapes={"images": {0: "batch"}},
        )
    if program is None:
        raise CheckpointError("torch's exporter gave nothing", where=str(path))
    program.save(path)


def _write_card(card: ExportCard, folder: Path) -> None:
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _to_int8(run: Path, engine: TorchEngine, card: ExportCard, work: Path) -> ExportCard:
    """Put the 8-bit network in the place of the float32 one, and say what that loses."""
    manifest = read_manifest(run / "manifest.csv", engine.card.taxonomy)
    split = manifest.table["split"]
    held_out = "test" if (split == "test").any() else "validation"
    try:
        training, _ = _images(manifest, "train", card.input_size, at_most=N_CALIBRATION)
        shown, labels = _images(manifest, held_out, card.input_size)
    except ImageFileError as error:
        raise CheckpointError(
            f"int8 needs the run's images, to calibrate and to measure its loss: {error}",
            where=str(run),
        ) from error
    whole = (work / MODEL_FILE).rename(work / "float32.onnx")
    write_int8(whole, work / MODEL_FILE, training)
    loss = _loss(engine, OnnxEngine(work), shown, labels, head=card.head)
    return card.model_copy(update={"precision": "int8", "loss": loss})


def _images(
    manifest: Manifest, split: str, input_size: int, *, at_most: int | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Read the original images of a part, evenly over its rows, with their labels (N, K)."""
    table = manifest.table
    ours = ((table["split"] == split).fillna(value=False) & table["parent_id"].isna()).to_numpy(
        bool
    )
    places = np.flatnonzero(ours)
    if not len(places):
        raise ImageFileError(f"no {split} images", where=manifest.location)
    if at_most is not None and len(places) > at_most:
        places = places[np.linspace(0, len(places) - 1, at_most).astype(int)]
    paths = manifest.image_paths()
    images = stacked([read_image(paths[place]) for place in places], input_size)
    keys = list(manifest.taxonomy.label_ids)
    labels = table.iloc[places][keys].apply(pd.to_numeric).to_numpy(np.float64, na_value=np.nan)
    return images, labels


def _loss(
    one: Engine,
    other: Engine,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.float64],
    *,
    head: Head,
) -> IntegerLoss:
    found = [_chances(engine, images, head) for engine in (one, other)]
    calls = [_calls(chances, head) for chances in found]
    unknown = np.isnan(labels)
    right = [((called == (labels == 1)) | unknown).all(axis=1).sum() for called in calls]
    apart = np.abs(found[0] - found[1])
    return IntegerLoss(
        n_images=len(images),
        n_calls_changed=int((calls[0] != calls[1]).any(axis=1).sum()),
        n_right_float32=int(right[0]),
        n_right=int(right[1]),
        largest_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
    )


def _chances(engine: Engine, images: npt.NDArray[np.uint8], head: Head) -> npt.NDArray[np.float64]:
    starts = range(0, len(images), BATCH)
    logits = [engine.answer(images[start : start + BATCH]).logits for start in starts]
    return probabilities_of(np.concatenate(logits), head)


def _calls(chances: npt.NDArray[np.float64], head: Head) -> npt.NDArray[np.bool_]:
    """Return the labels that are called, shape (N, K)."""
    if head == "sigmoid":
        return chances >= DECISION_THRESHOLD
    called: npt.NDArray[np.bool_] = np.arange(chances.shape[1]) == chances.argmax(axis=1)[:, None]
    return called


def _largest_difference(one: Engine, other: Engine) -> float:
    size, head = one.card.input_size, one.card.head
    rng = np.random.default_rng(0)
    images = [
        np.clip(rng.normal(rng.uniform(40, 240, 3), spread, (size, size, 3)), 0, 255)
        for spread in np.linspace(1, 80, N_CHECKED)
    ]
    batch = np.stack(images).astype(np.uint8)
    found = [probabilities_of(engine.answer(batch).logits, head) for engine in (one, other)]
    return float(np.abs(found[0] - found[1]).max())
