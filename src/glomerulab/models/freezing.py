"""Keep the first layers of a pretrained network as they are."""

from collections.abc import Collection

from torch import nn

from glomerulab.models.transfer.forward_order import layers_in_forward_order

__all__ = ["freeze_batchnorm_stats", "freeze_first"]


def freeze_first(
    model: nn.Module, pretrained: Collection[str], *, share: float, input_size: int
) -> tuple[str, ...]:
    """Freeze a share of the pretrained parameters, in the order in which an image passes them.

    Parameters
    ----------
    model : Module
        Changed in place: frozen parameters take no gradient.
    pretrained : collection of str
        Names of the entries of ``model.state_dict()`` that come from elsewhere. A layer counts as
        pretrained when all of its parameters do; no other layer is ever frozen.
    share : float
        Of the number of pretrained values, 0 to 1. Layers stay whole: the last frozen layer is the
        last one that fits.
    input_size : int
        Height and width of an image the network takes, px.

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
    The frozen share of Sun et al. 2022 (100, 75, 25, 0 %); what it is a share of is
    ours: the paper does not say.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    layers = dict(model.named_modules())
    sizes = {}
    for name in layers_in_forward_order(model, input_size=input_size):
        own = {f"{name}.{key}": weight for key, weight in _own_parameters(layers[name])}
        if own and own.keys() <= set(pretrained):
            sizes[name] = sum(weight.numel() for weight in own.values())
    room = round(share * sum(sizes.values()))
    frozen = []
    for name, size in sizes.items():
        room -= size
        if room < 0:
            break
        for _, weight in _own_parameters(layers[name]):
            weight.requires_grad = False
        frozen.append(name)
    return tuple(frozen)


def freeze_batchnorm_stats(model: nn.Module) -> None:
    """Put batch norms whose scale is frozen into evaluation mode; to be called after ``train()``.

    Their averages are those they came with: neither the batches nor a new measurement moves them.

    Parameters
    ----------
    model : Module
    """
    kind = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base of all batch norms
    for layer in model.modules():
        if isinstance(layer, kind) and layer.affine and not layer.weight.requires_grad:
            layer.eval()


def _own_parameters(layer: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(layer.named_parameters(recurse=False))
