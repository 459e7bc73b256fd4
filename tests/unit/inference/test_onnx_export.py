import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto
from onnx.numpy_helper import to_array
from torch import nn

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.base import probabilities_of
from glomerulab.inference.engines.onnx_engine import OnnxEngine, onnxruntime
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.engines.torch_engine import NetworkWithFeatures
from glomerulab.inference.onnx_export import MAX_DIFFERENCE, export_onnx, write_int8, write_onnx
from glomerulab.models.registry import create_model
from glomerulab.pipeline.predict import predict
from glomerulab.runtime.sealing import write_seal

pytestmark = pytest.mark.slow  # torch's exporter takes its time, whatever the network

WITHOUT_TORCH = """
import sys


class AsIfNotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision"}:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, AsIfNotInstalled())
from pathlib import Path
from glomerulab.pipeline.predict import predict

predict(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    done = export_onnx(trained, out)
    assert done.difference <= MAX_DIFFERENCE
    assert done.loss is None
    return out


@pytest.mark.parametrize("n", [1, 5])
def test_onnx_agrees_with_torch_for_any_batch_size(trained, exported, rng, n: int) -> None:
    images = rng.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8)
    ours, theirs = open_engine(exported).predict(images), open_engine(trained).predict(images)
    assert isinstance(open_engine(exported), OnnxEngine)
    difference = probabilities_of(ours.logits, "softmax") - probabilities_of(
        theirs.logits, "softmax"
    )
    assert np.abs(difference).max() <= MAX_DIFFERENCE
    assert ours.features == pytest.approx(theirs.features, abs=1e-3)


def test_predictions_without_torch_are_the_same(trained, exported, tmp_path) -> None:
    manifest = trained / "manifest.csv"
    command = [sys.executable, "-c", WITHOUT_TORCH, str(manifest), str(exported)]
    subprocess.run([*command, str(tmp_path / "onnx")], check=True)
    predict(manifest, trained, tmp_path / "torch")
    one, other = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("onnx", "torch"))
    columns = [name for name in one if name.startswith("probability_")]
    assert np.abs(one[columns].to_numpy() - other[columns].to_numpy()).max() <= MAX_DIFFERENCE
    for name in one.columns:
        if name.startswith(("called_", "state_")) or name == "reasons":
            assert one[name].equals(other[name])


def test_export_of_an_uncalibrated_run_names_the_command(own_run, tmp_path) -> None:
    shutil.rmtree(own_run / "gates")
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="glomerulab gates"):
        export_onnx(own_run, tmp_path)


def test_a_detector_of_an_earlier_version_is_not_exported(own_run, tmp_path) -> None:
    (own_run / "detector.json").write_text("{}")
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="train-segmenter"):
        export_onnx(own_run, tmp_path / "onnx")


def test_int8_reports_its_loss_correctly(trained, exported, tmp_path) -> None:
    loss = export_onnx(trained, tmp_path / "int8", precision="int8").loss
    engine = open_engine(tmp_path / "int8")
    assert engine.card.precision == "int8"
    assert engine.card.loss == loss
    predict(trained / "manifest.csv", tmp_path / "int8", tmp_path / "one")
    predict(trained / "manifest.csv", exported, tmp_path / "other")
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("one", "other")]
    manifest = pd.read_csv(trained / "manifest.csv")
    test = manifest.loc[manifest["split"] == "test", "image_id"]
    one, other = (table[table["image_id"].isin(test)] for table in tables)
    called = [name for name in one if name.startswith("called_")]
    changed = (one[called].to_numpy() != other[called].to_numpy()).any(axis=1)
    assert loss.n_images == len(test)
    assert loss.n_calls_changed == changed.sum()
    # Integers do differ, and by less than a guess would: the network is still the same one.
    assert 0 < loss.largest_difference < 0.2
    assert (tmp_path / "int8" / "model.onnx").read_bytes().count(b"QuantizeLinear")
    notes = read_case_folder(tmp_path / "one").facts.notes
    assert any("8-bit integers" in note.en and note.zh for note in notes)


def test_two_products_of_8_bits_fit_16_so_that_every_processor_adds_them(trained, tmp_path) -> None:
    export_onnx(trained, tmp_path, precision="int8")
    graph = onnx.load(tmp_path / "model.onnx").graph
    quantized = [to_array(one) for one in graph.initializer if one.data_type == TensorProto.INT8]
    weights = [one for one in quantized if one.ndim > 1]
    assert weights
    largest = max(int(np.abs(one.astype(int)).max()) for one in weights)
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_int8_without_images_fails_and_leaves_no_files(own_run, tmp_path) -> None:
    for picture in own_run.parent.glob("*.png"):
        picture.unlink()
    with pytest.raises(CheckpointError, match="int8"):
        export_onnx(own_run, tmp_path / "int8", precision="int8")
    assert not list((tmp_path / "int8").iterdir())


def test_int8_quantises_convolutions_and_logits_stay_close(tmp_path, rng) -> None:
    model = create_model("improved_seresnet_small", 3).eval()
    assert isinstance(model, nn.Module)
    network = NetworkWithFeatures(model, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()
    images = rng.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    float32, small = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
    write_onnx(network, 32, float32)
    write_int8(float32, small, images)
    for path in (float32, small):  # no paths of the machine that exported
        assert b'.py"' not in path.read_bytes()

    kinds = [node.op_type for node in onnx.load(small).graph.node]
    n_convs = kinds.count("Conv")
    assert n_convs
    assert kinds.count("QuantizeLinear") >= n_convs
    assert small.stat().st_size < 0.6 * float32.stat().st_size
    with torch.inference_mode():
        exact = network(torch.from_numpy(images))[0].numpy()
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"images": images[:5]})[0]
    assert found.shape == (5, 3)
    assert np.abs(found - exact[:5]).max() < 0.2 * np.abs(exact).max()
