from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.base import ModelOutput, probabilities_of, stack_images
from glomerulab.inference.engines.onnx_engine import OnnxEngine, ParallelSession
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.engines.torch_engine import NetworkWithFeatures, TorchEngine
from glomerulab.inference.onnx_export import write_onnx
from glomerulab.inference.tta import TtaEngine
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.registry import create_model


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_are_those_of_torch(head, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 8, (20, 4)).astype(np.float32)
    theirs = probabilities(torch.from_numpy(logits), head).numpy()
    assert np.abs(probabilities_of(logits, head) - theirs).max() < 1e-12


def test_images_of_any_size_become_one_batch(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((9, 30, 3), (64, 40, 3))]
    assert stack_images(images, 32).shape == (2, 32, 32, 3)


@pytest.mark.parametrize("folder", ["nosuch", "."])
def test_a_folder_without_a_model_is_named(tmp_path, folder) -> None:
    with pytest.raises(CheckpointError, match=r"run folder|no trained model") as caught:
        open_engine(tmp_path / folder)
    assert caught.value.where == str(tmp_path / folder)


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


def test_a_batch_split_over_the_cores_keeps_its_order(tmp_path, rng) -> None:
    model = create_model("improved_seresnet_small", 4, seed=1).eval()
    write_onnx(NetworkWithFeatures(model, (0.5,) * 3, (0.2,) * 3), 32, tmp_path / "model.onnx")
    session = ParallelSession((tmp_path / "model.onnx").read_bytes())
    images = rng.integers(0, 255, (2 * session.n_threads + 1, 32, 32, 3), dtype=np.uint8)
    together = session.predict(images)
    alone = [session.predict(image[None]) for image in images]
    assert together.logits == pytest.approx(np.concatenate([one.logits for one in alone]), abs=1e-4)
    assert together.features.shape == (len(images), 64 + 128 + 256 + 512)
    assert np.ptp(together.logits, axis=0).min() > 1e-3


def test_logits_are_those_of_the_checkpoint(trained: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    model, card = load_checkpoint(trained)
    mean, std = (torch.tensor(v)[:, None, None] for v in (card.mean, card.std))
    with torch.inference_mode():
        expected = model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0 - mean) / std)
    found = TorchEngine(trained).predict(images)
    assert np.abs(found.logits - expected.numpy()).max() < 1e-4
    assert found.features.shape == (3, 64 + 128 + 256 + 512)


def test_features_are_the_means_of_the_maps_of_every_stage() -> None:
    model = create_model("improved_seresnet_small", 4).eval()
    network = NetworkWithFeatures(model, (0.5,) * 3, (0.2,) * 3)
    images = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits, features = network(images)
        maps = model.stage_maps((images.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.2)
    assert logits.shape == (2, 4)
    expected = torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1)
    assert torch.allclose(features, expected, atol=1e-5)


def test_features_of_a_timm_network_cover_every_stage() -> None:
    network = NetworkWithFeatures(create_model("timm:resnet18", 4).eval(), (0.5,) * 3, (0.2,) * 3)
    with torch.inference_mode():
        _, features = network(torch.zeros((2, 64, 64, 3), dtype=torch.uint8))
    assert features.shape == (2, 64 + 64 + 128 + 256 + 512)


def test_the_hash_of_the_weights_is_reproducible(trained: Path) -> None:
    assert TorchEngine(trained).weights_sha256 == TorchEngine(trained).weights_sha256


class Corner:
    """Predicts from the brightness of one corner, which changes with every rotation."""

    weights_sha256 = "ab"
    max_concurrency = 1
    is_gpu = False

    def __init__(self, head: str) -> None:
        self.card = type("Card", (), {"head": head})()

    def predict(self, images):
        value = images[:, 0, 0, 0].astype(np.float32) / 50
        return ModelOutput(np.stack([value, -value], axis=1), value[:, None])


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_tta_returns_the_mean_probability_of_eight_symmetries(head: str) -> None:
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    corners = {(0, 0): 10, (0, 3): 60, (3, 0): 110, (3, 3): 160}
    for place, value in corners.items():
        image[(0, *place)] = value
    found = TtaEngine(Corner(head)).predict(image)
    logits = np.array([[v / 50, -v / 50] for v in corners.values()])
    each = softmax(logits, axis=1) if head == "softmax" else expit(logits)
    # Each corner comes to the upper left in two of the eight symmetries.
    np.testing.assert_allclose(
        probabilities_of(found.logits, head)[0], each.mean(axis=0), atol=1e-6
    )
    assert found.features.tolist() == [[pytest.approx(0.2)]]


def test_tta_is_invariant_under_rotation(trained, rng) -> None:
    engine = TtaEngine(open_engine(trained))
    size = engine.card.input_size
    images = rng.integers(0, 255, (3, size, size, 3), dtype=np.uint8)
    straight = engine.predict(images).logits
    turned = engine.predict(np.ascontiguousarray(np.rot90(images, axes=(1, 2))[:, :, ::-1])).logits
    np.testing.assert_allclose(straight, turned, atol=1e-4)
