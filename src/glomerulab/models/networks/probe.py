"""A frozen network, its features at several depths, and one linear layer on them."""

from functools import partial

import torch
from torch import Tensor, nn

from glomerulab.models.layers import Stage, find_classifier, find_stages, spread_stages

__all__ = ["FeatureExtractor", "Probe"]

VIEW_COUNTS = (1, 2, 4, 8)


class FeatureExtractor(nn.Module):
    """The features of a network: mean and maximum of the maps of each stage, then its last vector.

    Parameters
    ----------
    backbone : Module
        A network of the registry; its own classifier is computed but not used.
    n_stages : int, default 0
        Number of stages, from the first, whose maps are taken, without the last vector; 0 takes
        all and the vector.
    n_views : {1, 2, 4, 8}, default 1
        Orientations of each image (turns by 90 degrees, then mirrored) whose features are averaged.
    """

    def __init__(self, backbone: nn.Module, *, n_stages: int = 0, n_views: int = 1) -> None:
        super().__init__()
        if n_views not in VIEW_COUNTS:
            raise ValueError(f"n_views must be one of {VIEW_COUNTS}, got {n_views}")
        self.backbone = backbone
        self.n_views = n_views
        self._found: list[Tensor] = []
        stages = find_stages(backbone)
        for stage in spread_stages(stages[:n_stages] if n_stages else stages):
            stage.layer.register_forward_hook(partial(self._record, stage=stage))
        if not n_stages:
            find_classifier(backbone).register_forward_pre_hook(self._record_vector)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, shape (B, D), of normalised images (B, 3, H, W)."""
        views = [self._features(_turned(images, view)) for view in range(self.n_views)]
        return torch.stack(views).mean(dim=0) if len(views) > 1 else views[0]

    def _features(self, images: Tensor) -> Tensor:
        self._found.clear()
        self.backbone(images)
        features = torch.cat(self._found, dim=1)
        self._found.clear()
        return features

    def _record(
        self, _: nn.Module, __: tuple[Tensor, ...], output: object, *, stage: Stage
    ) -> None:
        tensor = stage.tensor(output)
        maps = None if tensor is None else stage.maps(tensor)
        if maps is not None:
            self._found += [maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))]

    def _record_vector(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._found.append(inputs[0].flatten(1))


class Probe(nn.Module):
    """Standardised features of a frozen network, and a linear layer that gives the logits."""

    offset: Tensor
    scale: Tensor

    def __init__(self, features: FeatureExtractor, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("offset", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (B, n_classes), of normalised images (B, 3, H, W)."""
        return self.head(self.features(images))

    def head(self, features: Tensor) -> Tensor:
        """Return logits, shape (B, n_classes), of features (B, D)."""
        logits: Tensor = self.linear((features - self.offset) * self.scale)
        return logits

    def get_classifier(self) -> nn.Linear:
        """Return the linear layer, as networks of timm do."""
        return self.linear

    @property
    def feature_info(self) -> list[dict[str, object]]:
        """The stages of the frozen network, as networks of timm declare theirs."""
        declared = getattr(self.features.backbone, "feature_info", None) or ()
        return [
            {**stage, "module": f"features.backbone.{stage['module']}"}
            for stage in declared
            if isinstance(stage, dict)
        ]

    @property
    def stages(self) -> object:
        """The stages of the frozen network, if it is one of ours."""
        return getattr(self.features.backbone, "stages", None)

    @property
    def num_prefix_tokens(self) -> int:
        """Class token and registers of the frozen network."""
        return int(getattr(self.features.backbone, "num_prefix_tokens", 0))

    @property
    def output_fmt(self) -> str:
        """Layout of the maps of the frozen network."""
        return str(getattr(self.features.backbone, "output_fmt", "NCHW"))


def _turned(images: Tensor, view: int) -> Tensor:
    """Return one of eight orientations."""
    turned = torch.rot90(images, view % 4, (2, 3)) if view % 4 else images
    return turned.flip(3) if view >= 4 else turned
