"""Find the layers of a network: its stages, its classifier, the order of the forward pass.

Works for the networks of the registry, ours and those of timm. `freeze_first` and what depends on
"the layers behind the first missing weight" follow the forward pass, not the order in which a
constructor names the layers.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

__all__ = [
    "Stage",
    "find_classifier",
    "find_stages",
    "freeze_batchnorm_stats",
    "freeze_first",
    "head_layers",
    "record_features",
    "spread_stages",
]

MAX_STAGES, N_SPREAD = 8, 4
"""Of a network with more stages than the first number (a transformer), the second are used."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer that ends a stage, and the layout of its output."""

    layer: nn.Module
    n_channels: int | None = None
    """As the network declares them; None if it does not."""
    n_prefix_tokens: int = 0
    """Class token and registers in front of the tokens of the patches."""
    channels_last: bool = False

    def tensor(self, output: object) -> Tensor | None:
        """Return the tensor that holds the maps, if the layer returns several."""
        if isinstance(output, (tuple, list)):
            found = (self.tensor(one) for one in output if self._has_channels(one))
            return next((one for one in found if one is not None), None)
        return output if isinstance(output, Tensor) and output.ndim in {3, 4} else None

    def maps(self, tensor: Tensor) -> Tensor | None:
        """Bring a tensor into the layout (B, C, H, W).

        Parameters
        ----------
        tensor : Tensor
            Maps (B, C, H, W) or (B, H, W, C), or tokens (B, N, C).

        Returns
        -------
        Tensor or None
            Without class token and registers; None if the tokens have no height and width.
        """
        if tensor.ndim == 4:
            return tensor.permute(0, 3, 1, 2) if self._is_channels_last(tensor) else tensor
        tokens = tensor if self._has_channels(tensor) else tensor.transpose(1, 2)  # (B, N, C)
        n_tokens = tokens.shape[1]
        side = math.isqrt(max(0, n_tokens - self.n_prefix_tokens))
        if side**2 + self.n_prefix_tokens != n_tokens:  # blocks that do not see the class token
            side = math.isqrt(n_tokens)
        if side == 0:
            return None
        patches = tokens[:, n_tokens - side**2 :]
        return patches.transpose(1, 2).reshape(-1, patches.shape[2], side, side)

    def _has_channels(self, output: object) -> bool:
        if not isinstance(output, Tensor):
            return False
        return self.n_channels is None or output.ndim == 4 or output.shape[-1] == self.n_channels

    def _is_channels_last(self, maps: Tensor) -> bool:
        first, last = (maps.shape[axis] == self.n_channels for axis in (1, 3))
        return self.channels_last if first == last else last


def find_stages(model: nn.Module) -> list[Stage]:
    """Return the layers that end the stages, in forward order; empty if none are declared."""
    stages = getattr(model, "stages", None)
    layers = dict(model.named_modules())
    declared = [
        (layers[str(stage["module"])], stage.get("num_chs"))
        for stage in getattr(model, "feature_info", None) or ()
        if isinstance(stage, dict) and str(stage.get("module")) in layers
    ]
    if not declared and isinstance(stages, nn.ModuleList):
        declared = [(layer, None) for layer in stages]
    n_prefix_tokens = int(getattr(model, "num_prefix_tokens", 0))
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return [Stage(layer, n, n_prefix_tokens, channels_last) for layer, n in declared]


def spread_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Return a few stages, evenly over the depth, of a network that declares every block one."""
    n_stages = len(stages)
    if n_stages <= MAX_STAGES:
        return list(stages)
    return [stages[n_stages * number // N_SPREAD - 1] for number in range(1, N_SPREAD + 1)]


def find_classifier(model: nn.Module) -> nn.Module:
    """Return the layer that turns the feature vector of an image into logits.

    Raises
    ------
    ValueError
        If the network has none.
    """
    of_timm = getattr(model, "get_classifier", None)
    found = of_timm() if callable(of_timm) else getattr(model, "classifier", None)
    if isinstance(found, (tuple, list, nn.ModuleList)) and len(found):
        found = found[0]  # the others read the distillation token, or other branches
    if isinstance(found, nn.Module) and any(True for _ in found.parameters()):
        return found
    raise ValueError(f"{type(model).__name__} has no layer that gives the logits")


def head_layers(model: nn.Module) -> tuple[str, ...]:
    """Name the layers that give the logits, which weights for other labels must not replace."""
    name = getattr(model, "pretrained_cfg", {}).get("classifier", "classifier")
    return (name,) if isinstance(name, str) else tuple(name)


@contextmanager
def record_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of the classifier while the block runs.

    Yields
    ------
    list of Tensor
        One of shape (B, D), on the CPU, per batch.
    """
    features: list[Tensor] = []
    handle = find_classifier(model).register_forward_pre_hook(
        lambda _, inputs: features.append(inputs[0].detach().float().flatten(1).cpu())
    )
    try:
        yield features
    finally:
        handle.remove()


def freeze_first(
    model: nn.Module, pretrained: Collection[str], *, share: float, input_size: int
) -> tuple[str, ...]:
    """Freeze a share of the pretrained parameters, in the order of the forward pass.

    Parameters
    ----------
    model : Module
        Changed in place: frozen parameters get no gradient.
    pretrained : collection of str
        Names of the pretrained entries of ``model.state_dict()``. A layer counts as pretrained if
        all of its parameters do; no other layer is ever frozen.
    share : float
        Of the number of pretrained values, 0 to 1. Layers are frozen completely or not at all: the
        last frozen layer is the last one that fits.
    input_size : int
        Height and width of an input image, px.

    Returns
    -------
    tuple of str
        The frozen layers.

    Raises
    ------
    ValueError
        If the share is not from 0 to 1.

    Notes
    -----
    The frozen share of Sun et al. 2022 (100, 75, 25, 0 %). The paper does not say what it is a
    share of; the number of values is our choice.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    layers = dict(model.named_modules())
    sizes = {}
    for name in layers_in_forward_order(model, input_size=input_size):
        own = {f"{name}.{key}": weight for key, weight in _own_parameters(layers[name])}
        if own and own.keys() <= set(pretrained):
            sizes[name] = sum(weight.numel() for weight in own.values())
    remaining = round(share * sum(sizes.values()))
    frozen = []
    for name, size in sizes.items():
        remaining -= size
        if remaining < 0:
            break
        for _, weight in _own_parameters(layers[name]):
            weight.requires_grad = False
        frozen.append(name)
    return tuple(frozen)


def freeze_batchnorm_stats(model: nn.Module) -> None:
    """Put batch norms with a frozen scale into evaluation mode; call it after ``train()``.

    Neither batches nor a new measurement then change their running statistics.
    """
    for layer in model.modules():
        if is_batch_norm(layer) and layer.affine and not layer.weight.requires_grad:
            layer.eval()


def layers_in_forward_order(model: nn.Module, *, input_size: int) -> list[str]:
    """Name the layers with parameters or buffers of their own, in the order of the forward pass.

    Layers that the forward pass skips in evaluation mode (an auxiliary head) come last. Mode and
    running statistics of the model stay as they are.
    """
    names = {layer: name for name, layer in model.named_modules() if _has_own_tensors(layer)}
    reached: dict[str, None] = {}

    def record(layer: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        reached[names[layer]] = None

    handles = [layer.register_forward_pre_hook(record) for layer in names]
    was_training = model.training
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, input_size, input_size, device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return [*reached, *(name for name in names.values() if name not in reached)]


def weights_in_forward_order(model: nn.Module, *, input_size: int) -> list[str]:
    """Name the entries of ``model.state_dict()`` in the order of `layers_in_forward_order`."""
    order = layers_in_forward_order(model, input_size=input_size)
    position = {name: index for index, name in enumerate(order)}
    return sorted(model.state_dict(), key=lambda key: position[key.rpartition(".")[0]])


def is_batch_norm(layer: nn.Module) -> TypeGuard[nn.modules.batchnorm._BatchNorm]:
    """Return whether a layer is a batch norm of any dimension."""
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base of all batch norms
    return isinstance(layer, base)


def _has_own_tensors(layer: nn.Module) -> bool:
    return bool([*layer.parameters(recurse=False), *layer.buffers(recurse=False)])


def _own_parameters(layer: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(layer.named_parameters(recurse=False))
