import numpy as np
import pytest

from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.onnx_engine import DealtSession, OnnxEngine
from glomerulab.inference.engines.torch_engine import AnswersWithFeatures
from glomerulab.inference.onnx_export import write_onnx
from glomerulab.models.registry import create_model

CARD = (
    '{"model": "m", "taxonomy_name": "t", "labels": [{"id": "a", "name": "A"}], "input_size": 32, '
    '"mean": [0, 0, 0], "std": [1, 1, 1], "weights_sha256": "x"}'
)


def test_a_missing_card_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"card\.json"):
        OnnxEngine(tmp_path)


def test_a_damaged_model_is_named(tmp_path) -> None:
    (tmp_path / "card.json").write_text(CARD)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        OnnxEngine(tmp_path)


def test_a_batch_dealt_to_all_cores_comes_back_in_order(tmp_path, rng) -> None:
    model = create_model("improved_seresnet_small", 4, seed=1).eval()
    write_onnx(AnswersWithFeatures(model, (0.5,) * 3, (0.2,) * 3), 32, tmp_path / "model.onnx")
    session = DealtSession(tmp_path / "model.onnx")
    images = rng.integers(0, 255, (2 * session.n_threads + 1, 32, 32, 3), dtype=np.uint8)
    together = session.answer(images)
    alone = [session.answer(image[None]) for image in images]
    assert together.logits == pytest.approx(np.concatenate([one.logits for one in alone]), abs=1e-4)
    assert together.features.shape == (len(images), 64 + 128 + 256 + 512)
    assert np.ptp(together.logits, axis=0).min() > 1e-3
