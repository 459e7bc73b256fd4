"""The networks of the registry, a small one, and one whose saliency is known by construction."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import save_checkpoint
from glomerulab.models.registry import MODELS, create_model
from glomerulab.taxonomy import load_taxonomy

__all__ = ["EVERY_NETWORK", "PooledMaps", "small_card", "write_small_checkpoint"]

HEAVY = {"vgg16", "inception_v3"}
EVERY_NETWORK = [
    pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else [])
    for name in (*MODELS, "timm:resnet18")
]


def small_card(**changes: object) -> ModelCard:
    """Return the card of a small network for the labels of the paper."""
    paper = load_taxonomy("paper")
    fields = {
        "model": "improved_seresnet_small",
        "taxonomy_name": paper.name,
        "labels": paper.labels,
        "input_size": 32,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
    }
    return ModelCard(**{**fields, **changes})


def write_small_checkpoint(run: Path, *, seed: int = 1, **changes: object) -> Path:
    """Write the untrained network of a seed as the checkpoint of a run, and return the run."""
    card = small_card(**changes)
    model = create_model(card.model, len(card.labels), seed=seed)
    save_checkpoint(run / "checkpoint", model.state_dict(), card)
    return run


class PooledMaps(nn.Module):
    """A stage without non-linearity, a mean over the map, a classifier: Grad-CAM is then CAM."""

    def __init__(self, n_classes: int = 2, n_maps: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stages = nn.ModuleList([nn.Conv2d(3, n_maps, 4, stride=4, bias=False)])
        self.classifier = nn.Linear(n_maps, n_classes, bias=False)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stages[0](images).mean(dim=(2, 3)))
