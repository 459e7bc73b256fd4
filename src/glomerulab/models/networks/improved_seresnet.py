"""The improved SE-ResNet50 of the paper: residual modules of 1×3 and 3×1 convolutions with SE.

Decision 0050 explains the three readings of the paper.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

PaperReading = Literal["paper", "cited", "wide"]
"""``paper``: equal width, each stage widened fourfold at its end; ``cited``: equal width, never
widened; ``wide``: each module widens fourfold, as a bottleneck does."""

EXPANSION = 4
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_DEPTHS = (3, 4, 6, 3)


class SqueezeExcitation(nn.Module):
    r"""Weight each channel by a function of the means of all channels.

    Implements eq. (1)-(3) of [1]_: the mean :math:`z` of each channel,
    :math:`s = \sigma(W_2 \delta(W_1 z))`, and :math:`\tilde x = s \cdot u`.

    References
    ----------
    .. [1] Sun et al., Chinese Journal of Medical Physics 39(10):1313-1320, 2022.
    """

    def __init__(self, n_channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        n_squeezed = max(1, n_channels // reduction)
        # No biases: the equations have none, and without them the cited network's count is exact.
        self.squeeze = nn.Linear(n_channels, n_squeezed, bias=False)  # W1
        self.excite = nn.Linear(n_squeezed, n_channels, bias=False)  # W2

    def forward(self, maps: Tensor) -> Tensor:
        """Scale the channels of `maps`, shape (B, C, H, W)."""
        return maps * self.scales(maps)  # eq. (3)

    def scales(self, maps: Tensor) -> Tensor:
        """Return the weight of each channel, shape (B, C, 1, 1), from 0 to 1."""
        means = maps.mean(dim=(2, 3))  # (B, C), eq. (1)
        scales: Tensor = self.excite(self.squeeze(means).relu()).sigmoid()  # (B, C), eq. (2)
        return scales[:, :, None, None]


class ImprovedModule(nn.Module):
    """1×3, 3×1, 1×3, 3×1 convolutions, then SE, added to the shortcut (Fig. 2 of [1]_).

    Notes
    -----
    Batch norm and ReLU come before each pair, or as in [2]_ before each convolution. With equal
    widths w the four convolutions hold 12·w² weights (eq. 7 of [1]_). The shortcut is the identity,
    or where the shape changes a 1×1 convolution of the first activation, without batch norm.

    References
    ----------
    .. [1] Sun et al., Chinese Journal of Medical Physics 39(10):1313-1320, 2022.
    .. [2] Jiang et al., PLoS ONE 14(3):e0214587, 2019 (BHCNet).
    """

    def __init__(
        self,
        n_in: int,
        width: int,
        n_out: int,
        *,
        stride: int = 1,
        conv_bias: bool = False,
        activation_inside_pair: bool = False,
    ) -> None:
        super().__init__()
        inside = activation_inside_pair
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = _row_conv(n_in, width, stride=stride, bias=conv_bias)
        self.norm2 = nn.BatchNorm2d(width) if inside else None
        self.conv2 = _column_conv(width, width, stride=stride, bias=conv_bias)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = _row_conv(width, width, stride=1, bias=conv_bias)
        self.norm4 = nn.BatchNorm2d(width) if inside else None
        self.conv4 = _column_conv(width, n_out, stride=1, bias=conv_bias)
        self.attention = SqueezeExcitation(n_out)
        same_shape = n_in == n_out and stride == 1
        self.shortcut = (
            None if same_shape else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=conv_bias)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H / stride, W / stride)."""
        # In-place ReLUs and a fused last step save passes over the maps: convolutions this thin are
        # limited by memory bandwidth.
        active = self.norm1(maps).relu_()
        kept = maps if self.shortcut is None else self.shortcut(active)
        inner = self.conv1(active)
        inner = self.conv2(inner if self.norm2 is None else self.norm2(inner).relu_())
        inner = self.conv3(self.norm3(inner).relu_())
        inner = self.conv4(inner if self.norm4 is None else self.norm4(inner).relu_())
        return torch.addcmul(kept, inner, self.attention.scales(inner))


class ImprovedSeResNet(nn.Module):
    """Stem, stages of improved modules, global average pool, dropout, fully connected layer.

    Parameters
    ----------
    reading : {"paper", "cited", "wide"}, default "paper"
    widths : sequence of int, default (64, 128, 256, 512)
        Width of the modules of each stage.
    depths : sequence of int, default (3, 4, 6, 3)
        Modules of each stage.
    stem : {"imagenet", "cifar"}, default "imagenet"
        7×7 stride 2 and max pooling as in the paper, or 3×3 stride 1 without pooling as [19] of the
        paper uses on images of 32×32.
    dropout : float, default 0.0
        Probability of zeroing a pooled feature in training.
    conv_bias : bool, default False
    activation_inside_pair : bool, optional
        See `ImprovedModule`; by default only in the reading ``cited``, whose published count needs
        it. Decision 0050 has the measurements.

    Raises
    ------
    ValueError
        If the reading is unknown or `widths` and `depths` differ in length.

    Notes
    -----
    Ours, not the paper's: eq. (7) counts modules of equal width, yet the stage outputs are four
    times as wide. In the reading ``paper`` a 1×1 convolution (after batch norm and ReLU) at the end
    of each stage widens it, so that both hold.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        reading: PaperReading = "paper",
        widths: Sequence[int] = STAGE_WIDTHS,
        depths: Sequence[int] = STAGE_DEPTHS,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        dropout: float = 0.0,
        conv_bias: bool = False,
        activation_inside_pair: bool | None = None,
    ) -> None:
        super().__init__()
        if reading not in get_args(PaperReading):
            raise ValueError(f"reading must be one of {get_args(PaperReading)}, got {reading!r}")
        if len(widths) != len(depths):
            raise ValueError(f"{len(widths)} widths but {len(depths)} depths")
        if activation_inside_pair is None:
            activation_inside_pair = reading == "cited"
        self.stem = _stem(widths[0], kind=stem, bias=conv_bias)
        self.stages = nn.ModuleList()
        n_channels = widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage = _stage(
                n_channels,
                width,
                depth,
                reading=reading,
                stride=1 if index == 0 else 2,
                conv_bias=conv_bias,
                activation_inside_pair=activation_inside_pair,
            )
            self.stages.append(stage)
            n_channels = width if reading == "cited" else EXPANSION * width
        self.norm = nn.BatchNorm2d(n_channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_channels, n_classes)
        self.apply(_initialise)

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """Return the output of every stage, for images of shape (B, 3, H, W)."""
        maps = self.stem(images)
        outputs = []
        for stage in self.stages:
            maps = stage(maps)
            outputs.append(maps)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (B, n_classes), of images of shape (B, 3, H, W)."""
        maps = self.norm(self.stage_maps(images)[-1]).relu()
        pooled = maps.mean(dim=(2, 3))  # (B, C)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def improved_seresnet50(
    n_classes: int,
    *,
    reading: PaperReading = "paper",
    stem: Literal["imagenet", "cifar"] = "imagenet",
    dropout: float = 0.0,
    conv_bias: bool = False,
    activation_inside_pair: bool | None = None,
) -> ImprovedSeResNet:
    """Build the paper's network: stages of 3, 4, 6, 3 modules at widths 64 to 512.

    For the parameters see `ImprovedSeResNet`.
    """
    return ImprovedSeResNet(
        n_classes,
        reading=reading,
        stem=stem,
        dropout=dropout,
        conv_bias=conv_bias,
        activation_inside_pair=activation_inside_pair,
    )


def improved_seresnet_small(
    n_classes: int,
    *,
    reading: PaperReading = "paper",
    dropout: float = 0.0,
    activation_inside_pair: bool = True,
) -> ImprovedSeResNet:
    """Build a small network of the same modules, for a CPU and small cohorts.

    Ours, not the paper's: one module per stage at widths 16, 32, 64 and 128. For the parameters see
    `ImprovedSeResNet`; in stages of one module neither value of `activation_inside_pair` was
    clearly better (decision 0050).
    """
    return ImprovedSeResNet(
        n_classes,
        reading=reading,
        widths=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        dropout=dropout,
        activation_inside_pair=activation_inside_pair,
    )


def _stem(width: int, *, kind: str, bias: bool) -> nn.Sequential:
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=bias))
    if kind != "imagenet":
        raise ValueError(f"stem must be 'imagenet' or 'cifar', got {kind!r}")
    # No norm here: the first module begins with one.
    conv = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=bias)
    return nn.Sequential(conv, nn.MaxPool2d(3, stride=2, padding=1))


def _stage(
    n_in: int,
    width: int,
    depth: int,
    *,
    reading: PaperReading,
    stride: int,
    conv_bias: bool,
    activation_inside_pair: bool,
) -> nn.Sequential:
    """Chain the modules of one stage; only the first may stride or change the width."""
    n_out = EXPANSION * width if reading == "wide" else width
    layers: list[nn.Module] = [
        ImprovedModule(
            n_in if index == 0 else n_out,
            width,
            n_out,
            stride=stride if index == 0 else 1,
            conv_bias=conv_bias,
            activation_inside_pair=activation_inside_pair,
        )
        for index in range(depth)
    ]
    if reading == "paper":
        widen = nn.Conv2d(width, EXPANSION * width, 1, bias=conv_bias)
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), widen]
    return nn.Sequential(*layers)


def _row_conv(n_in: int, n_out: int, *, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, (1, 3), stride=(1, stride), padding=(0, 1), bias=bias)


def _column_conv(n_in: int, n_out: int, *, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, (3, 1), stride=(stride, 1), padding=(1, 0), bias=bias)


def _initialise(layer: nn.Module) -> None:
    """Draw weights by He et al. 2015, so that the variance is kept through the ReLUs."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
