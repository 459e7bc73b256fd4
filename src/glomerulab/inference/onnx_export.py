"""Export a run as ONNX: a folder that `predict` takes in place of the run, without torch."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import CheckpointError, ImageFileError
from glomerulab.images import read_image
from glomerulab.inference.calibration import (
    has_calibration,
    read_calibration,
    write_calibration,
)
from glomerulab.inference.engines.base import Engine, probabilities_of, stack_images
from glomerulab.inference.engines.onnx_engine import (
    CARD_FILE,
    MODEL_FILE,
    ExportCard,
    OnnxEngine,
    Precision,
    QuantizationLoss,
)
from glomerulab.inference.engines.torch_engine import NetworkWithFeatures, TorchEngine
from glomerulab.inference.segmenter import check_no_old_detector
from glomerulab.predictions import DECISION_THRESHOLD, Head
from glomerulab.runtime.files import atomic_write, make_folder, partial_folder, remove_partial_files
from glomerulab.runtime.sealing import (
    SealedFolder,
    open_model_folder,
    refuse_other_model,
    write_seal,
)

__all__ = ["export_onnx"]

MAX_DIFFERENCE = 1e-4
"""Maximum difference of a probability between the engines; otherwise the export is discarded."""
N_CHECKED = 16
N_CALIBRATION = 64
BATCH = 16

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ExportResult:
    """How the exported model differs from torch."""

    difference: float
    """Largest difference of a probability in float32, over images of noise of many kinds."""
    loss: QuantizationLoss | None
    """What 8-bit integers change on held-out images; None for float32."""


def export_onnx(run: Path, out: Path, *, precision: Precision = "float32") -> ExportResult:
    """Write a run as ONNX, and check that its probabilities are those of torch.

    Parameters
    ----------
    run : Path
        A run folder with its calibration.
    out : Path
        Folder for ``model.onnx``, ``card.json``, ``gates/`` and ``seal.json``; created if needed.
    precision : {"float32", "int8"}, default "float32"
        int8 needs the images of the run: training images for its calibration, held-out images to
        measure the loss.

    Raises
    ------
    CheckpointError
        If the run has no calibration, the two engines differ in float32, or int8 lacks the images.
    """
    check_no_old_detector(run)
    files = open_model_folder(run)
    refuse_other_model(out, own=MODEL_FILE)
    engine = TorchEngine(files)
    if not has_calibration(run):
        raise CheckpointError(
            f"the run {run.name} has no calibration yet; run `glomerulab gates RUN` first",
            where=str(run),
        )
    calibration = read_calibration(files)
    make_folder(out)
    remove_partial_files(out)
    card = ExportCard(**engine.card.model_dump(), weights_sha256=engine.weights_sha256)
    with partial_folder(out / "work") as work:
        _write_card(card, work)
        write_onnx(engine.network.cpu(), engine.card.input_size, work / MODEL_FILE)
        difference = _largest_difference(engine, OnnxEngine(SealedFolder(work, rewriting="")))
        if difference > MAX_DIFFERENCE:
            raise CheckpointError(
                f"the exported model was discarded: its probabilities differ from torch's by "
                f"{difference:.2g}",
                where=str(out),
            )
        if precision == "int8":
            card = _quantize_run(run, engine, card, work)
        with atomic_write(out / MODEL_FILE) as temporary:
            shutil.copyfile(work / MODEL_FILE, temporary)
    _write_card(card, out)
    write_calibration(calibration, out)
    write_seal(out)
    return ExportResult(difference, card.loss)


def write_onnx(network: NetworkWithFeatures, input_size: int, path: Path) -> None:
    """Write a network as an ONNX graph from bytes to logits and features.

    The network must be in evaluation mode and on the CPU; the graph takes any batch size.
    """
    example = torch.zeros((2, input_size, input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
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
        raise CheckpointError("torch's exporter returned no program", where=str(path))
    program.save(path)
    _remove_metadata(path)


def _remove_metadata(path: Path) -> None:
    """Remove the exporter's metadata, which holds source paths of the machine that exported."""
    model = onnx.load(path)
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values, *model.functions):
        part.ClearField("metadata_props")
    onnx.save(model, path)


def write_int8(source: Path, path: Path, images: Images) -> None:
    """Quantise the convolutions of a float32 ONNX model to 8-bit integers.

    Parameters
    ----------
    source : Path
        A float32 model of `write_onnx`.
    path : Path
        Replaced if it exists.
    images : ndarray of uint8, shape (N, S, S, 3)
        Training images, which show the range of values of each layer.

    Notes
    -----
    Weights have a scale per output channel, activations one per layer, between the smallest and
    largest value seen. Everything but convolutions and the classifier stays in float32. Less exact,
    and faster where the processor has VNNI. Weights take 7 of the 8 bits: without VNNI, ONNX
    Runtime adds two products in 16 bits, which larger ones exceed.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            path,
            _CalibrationImages(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )


class _CalibrationImages(CalibrationDataReader):  # type: ignore[misc]
    """Images in batches, for ONNX Runtime."""

    def __init__(self, images: Images) -> None:
        self._batches: Iterator[Images] = _batches(images)

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _batches(images: Images) -> Iterator[Images]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def _write_card(card: ExportCard, folder: Path) -> None:
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _quantize_run(run: Path, engine: Engine, card: ExportCard, work: Path) -> ExportCard:
    """Replace the float32 model by an 8-bit one, and record the loss in its card."""
    manifest = read_manifest(run / "manifest.csv", engine.card.taxonomy)
    split = manifest.table["split"]
    held_out = "test" if (split == "test").any() else "validation"
    try:
        training, _ = _read_part(manifest, "train", card.input_size, at_most=N_CALIBRATION)
        images, labels = _read_part(manifest, held_out, card.input_size)
    except ImageFileError as error:
        raise CheckpointError(
            "int8 needs the images of the run for its calibration and to measure its loss: "
            f"{error}",
            where=str(run),
        ) from error
    float32 = (work / MODEL_FILE).rename(work / "float32.onnx")
    write_int8(float32, work / MODEL_FILE, training)
    loss = _quantization_loss(
        engine, OnnxEngine(SealedFolder(work, rewriting="")), images, labels, head=card.head
    )
    return card.model_copy(update={"precision": "int8", "loss": loss})


def _read_part(
    manifest: Manifest, split: str, input_size: int, *, at_most: int | None = None
) -> tuple[Images, npt.NDArray[np.float64]]:
    """Read the original images of a part, evenly over its rows, with their labels (N, K)."""
    table = manifest.table
    chosen = (table["split"] == split).fillna(value=False) & table["parent_id"].isna()
    rows = np.flatnonzero(chosen.to_numpy(bool))
    if not len(rows):
        raise ImageFileError(f"the manifest has no {split} images", where=manifest.location)
    if at_most is not None and len(rows) > at_most:
        rows = rows[np.linspace(0, len(rows) - 1, at_most).astype(int)]
    paths = manifest.image_paths()
    images = stack_images([read_image(paths[row]) for row in rows], input_size)
    keys = list(manifest.taxonomy.label_ids)
    labels = table.iloc[rows][keys].apply(pd.to_numeric).to_numpy(np.float64, na_value=np.nan)
    return images, labels


def _quantization_loss(
    float32: Engine,
    int8: Engine,
    images: Images,
    labels: npt.NDArray[np.float64],
    *,
    head: Head,
) -> QuantizationLoss:
    probabilities = [_probabilities(engine, images, head) for engine in (float32, int8)]
    calls = [_calls(one, head) for one in probabilities]
    unknown = np.isnan(labels)
    n_right = [((called == (labels == 1)) | unknown).all(axis=1).sum() for called in calls]
    differences = np.abs(probabilities[0] - probabilities[1])
    return QuantizationLoss(
        n_images=len(images),
        n_calls_changed=int((calls[0] != calls[1]).any(axis=1).sum()),
        n_right_float32=int(n_right[0]),
        n_right=int(n_right[1]),
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
    )


def _probabilities(engine: Engine, images: Images, head: Head) -> npt.NDArray[np.float64]:
    logits = [engine.predict(batch).logits for batch in _batches(images)]
    return probabilities_of(np.concatenate(logits), head)


def _calls(probabilities: npt.NDArray[np.float64], head: Head) -> npt.NDArray[np.bool_]:
    """Return the labels that are called, shape (N, K)."""
    if head == "sigmoid":
        return probabilities >= DECISION_THRESHOLD
    likeliest = probabilities.argmax(axis=1)[:, None]
    called: npt.NDArray[np.bool_] = np.arange(probabilities.shape[1]) == likeliest
    return called


def _largest_difference(one: Engine, other: Engine) -> float:
    size, head = one.card.input_size, one.card.head
    rng = np.random.default_rng(0)
    images = [
        np.clip(rng.normal(rng.uniform(40, 240, 3), spread, (size, size, 3)), 0, 255)
        for spread in np.linspace(1, 80, N_CHECKED)
    ]
    batch = np.stack(images).astype(np.uint8)
    found = [probabilities_of(engine.predict(batch).logits, head) for engine in (one, other)]
    return float(np.abs(found[0] - found[1]).max())
