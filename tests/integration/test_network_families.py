"""One network of each family of timm, from training to serving."""

import numpy as np
import pandas as pd
import pytest
import torch

from glomerulab.errors import ConfigError
from glomerulab.explain.explainer import Explainer, ExplainInput
from glomerulab.inference.engines.base import probabilities_of
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.model import load_model
from glomerulab.inference.onnx_export import MAX_DIFFERENCE, export_onnx
from glomerulab.models.checkpoint import load_checkpoint
from tests.support.model_runs import train_small_run
from tests.support.served_models import served

VIT = {"embed_dim": 24, "depth": 3, "num_heads": 2, "patch_size": 8, "init_values": 1e-5}
FAMILIES = {
    "cnn": {"name": "timm:test_resnet"},
    "mobilenet": {"name": "timm:mobilenetv3_small_050"},
    "convnext": {
        "name": "timm:convnext_atto",
        "options": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    },
    "swin": {
        "name": "timm:swin_tiny_patch4_window7_224",
        "input_size": 64,
        "options": {
            "embed_dim": 12,
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 2, 2, 4),
            "window_size": 2,
        },
    },
    "vit with class token and registers": {
        "name": "timm:vit_tiny_patch16_224",
        "options": VIT | {"reg_tokens": 4},
    },
    "vit with mean of patches": {
        "name": "timm:vit_tiny_patch16_224",
        "options": VIT | {"global_pool": "avg", "class_token": False},
    },
}


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return train_small_run(folder, epochs=1, **FAMILIES[request.param])


def test_a_network_of_any_family_trains_predicts_is_explained_and_served(run, tmp_path):
    image = run.parent / "0.png"
    model = load_model(run)  # fits the calibration on its features
    (decision,) = model.predict([image], stain="PAS", mpp=0.5)
    assert sum(decision.probabilities.values()) == pytest.approx(1.0)
    assert len(decision.called) == 1
    explainer = Explainer(run)
    table = explainer.explain([ExplainInput("a", image)], tmp_path, measured=False).table
    assert set(table["method"]) == set(explainer.methods) >= {"integrated-gradients", "occlusion"}
    with served(run, tmp_path) as service:
        address = "/v1/crops?stain=PAS&mpp=0.5&saliency=true"
        answer = service.client().post(address, content=image.read_bytes())
        assert answer.json()["overlay"]["method"] == "grad-cam"


@pytest.mark.slow  # torch's exporter takes its time, whatever the network
def test_the_export_of_any_family_agrees_with_torch(run, tmp_path, rng):
    load_model(run)
    assert export_onnx(run, tmp_path / "onnx").difference <= MAX_DIFFERENCE
    ours, theirs = open_engine(tmp_path / "onnx"), open_engine(run)
    size = ours.card.input_size
    images = rng.integers(0, 255, (3, size, size, 3), dtype=np.uint8)
    found, expected = ours.predict(images), theirs.predict(images)
    np.testing.assert_allclose(
        probabilities_of(found.logits, "softmax"),
        probabilities_of(expected.logits, "softmax"),
        atol=MAX_DIFFERENCE,
    )
    # By the largest feature: a barely trained MobileNet gives values of 80 for noise.
    tolerance = 1e-3 * max(1.0, float(np.abs(expected.features).max()))
    np.testing.assert_allclose(found.features, expected.features, atol=tolerance)


def test_features_of_a_transformer_are_means_of_its_patches_and_its_final_vector(tmp_path, rng):
    run = train_small_run(tmp_path, epochs=1, **FAMILIES["vit with class token and registers"])
    engine = open_engine(run)
    images = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    features = torch.from_numpy(engine.predict(images).features)
    model, card = load_checkpoint(run)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(value)[:, None, None] for value in (card.mean, card.std))
    with torch.inference_mode():
        # timm's own split of class token, registers and patches is the oracle.
        tokens, maps = model.forward_intermediates((pixels - mean) / std, norm=False)
        vector = model.forward_head(tokens, pre_logits=True)
    expected = torch.cat([*(one.mean(dim=(2, 3)) for one in maps), vector], dim=1)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


def test_swin_features_are_means_over_height_and_width(tmp_path, rng):
    run = train_small_run(tmp_path, epochs=1, **FAMILIES["swin"])
    engine = open_engine(run)
    images = rng.integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    features = torch.from_numpy(engine.predict(images).features)
    model, card = load_checkpoint(run)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(value)[:, None, None] for value in (card.mean, card.std))
    with torch.inference_mode():
        maps = model.forward_intermediates((pixels - mean) / std, intermediates_only=True)
    expected = torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"name": "timm:vit_tiny_patch16_224", "options": {"img_size": 64}}, "32 px"),
        ({"name": "timm:test_resnet", "options": {"reg_tokens": 4}}, "reg_tokens"),
        ({"name": "timm:vit_tiny_patch16_224", "options": {"global_pool": ""}}, "returns"),
    ],
)
def test_what_a_network_does_not_take_is_named_before_training(tmp_path, model, reason):
    with pytest.raises(ConfigError, match=reason):
        train_small_run(tmp_path, **model)
    assert not (tmp_path / "run").exists()
    assert pd.read_csv(tmp_path / "manifest.csv").shape[0] > 0
