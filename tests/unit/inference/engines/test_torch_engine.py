from pathlib import Path

import numpy as np
import torch

from glomerulab.inference.engines.torch_engine import AnswersWithFeatures, TorchEngine
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
    assert found.features.shape == (3, 64 + 128 + 256 + 512)


def test_features_are_the_means_of_the_maps_of_every_stage() -> None:
    model = create_model("improved_seresnet_small", 4).eval()
    network = AnswersWithFeatures(model, (0.5,) * 3, (0.2,) * 3)
    images = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits, features = network(images)
        maps = model.stage_maps((images.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.2)
    assert logits.shape == (2, 4)
    expected = torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1)
    assert torch.allclose(features, expected, atol=1e-5)


def test_a_network_of_timm_gives_its_stages_too() -> None:
    network = AnswersWithFeatures(create_model("timm:resnet18", 4).eval(), (0.5,) * 3, (0.2,) * 3)
    with torch.inference_mode():
        _, features = network(torch.zeros((2, 64, 64, 3), dtype=torch.uint8))
    assert features.shape == (2, 64 + 64 + 128 + 256 + 512)


def test_the_weights_are_known_by_their_hash(trained: Path) -> None:
    assert TorchEngine(trained).weights_sha256 == TorchEngine(trained).weights_sha256
