from pathlib import Path

import numpy as np
import torch

from glomerulab.inference.torch_engine import AnswersWithFeatures, TorchEngine
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.registry import create_model


def test_logits_are_those_of_the_checkpoint(trained: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    model, card = load_checkpoint(trained)
    mean, std = (torch.tensor(v)[:, None, None] for v in (card.mean, card.std))
    with torch.inference_mode():
        expected = model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0 - mean) / std)
    found = TorchEngine(trained).answer(images)
    assert np.abs(found.logits - expected.numpy()).max() < 1e-4
    assert found.features.shape == (3, 512)


def test_features_are_the_mean_of_the_last_maps() -> None:
    network = AnswersWithFeatures(create_model("resnet50", 4).eval(), (0.5,) * 3, (0.2,) * 3)
    with torch.inference_mode():
        logits, features = network(torch.zeros((2, 64, 64, 3), dtype=torch.uint8))
    assert logits.shape == (2, 4)
    assert features.shape == (2, 2048)


def test_the_weights_are_known_by_their_hash(trained: Path) -> None:
    assert TorchEngine(trained).weights_sha256 == TorchEngine(trained).weights_sha256
