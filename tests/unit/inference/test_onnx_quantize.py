import numpy as np
import onnx
import pytest
import torch
from torch import nn

from glomerulab.inference.engines.onnx_engine import onnxruntime
from glomerulab.inference.engines.torch_engine import AnswersWithFeatures
from glomerulab.inference.onnx_export import write_onnx
from glomerulab.inference.onnx_quantize import write_int8

pytestmark = pytest.mark.slow  # torch's exporter takes its time, whatever the network


def test_convolutions_become_integers_and_answers_stay_close(tmp_path, rng) -> None:
    from glomerulab.models.registry import create_model

    model = create_model("improved_seresnet_small", 3).eval()
    assert isinstance(model, nn.Module)
    network = AnswersWithFeatures(model, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()
    images = rng.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    whole, small = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
    write_onnx(network, 32, whole)
    write_int8(whole, small, images)

    kinds = [node.op_type for node in onnx.load(small).graph.node]
    n_convs = kinds.count("Conv")
    assert n_convs
    assert kinds.count("QuantizeLinear") >= n_convs
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    with torch.inference_mode():
        exact = network(torch.from_numpy(images))[0].numpy()
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"images": images[:5]})[0]
    assert found.shape == (5, 3)
    assert np.abs(found - exact[:5]).max() < 0.2 * np.abs(exact).max()
