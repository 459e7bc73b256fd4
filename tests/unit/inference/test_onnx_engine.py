import pytest

from glomerulab.errors import CheckpointError
from glomerulab.inference.onnx_engine import OnnxEngine

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
