"""The networks of the registry, and one whose saliency is known by construction."""

import pytest
import torch
from torch import Tensor, nn

from glomerulab.models.registry import MODELS

__all__ = ["EVERY_NETWORK", "PooledMaps"]

HEAVY = {"vgg16", "inception_v3"}
EVERY_NETWORK = [
    pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else [])
    for name in (*MODELS, "timm:resnet18")
]


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
