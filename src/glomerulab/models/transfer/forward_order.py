"""The layers of a network in the order in which an image passes them.

Freezing "the first half" and "what comes after the first missing weight" are about this order, and
not about the order in which a constructor names its layers.
"""

import torch
from torch import Tensor, nn

__all__ = ["layers_in_forward_order", "weights_in_forward_order"]


def layers_in_forward_order(model: nn.Module, *, input_size: int) -> list[str]:
    """Name the layers that hold tensors of their own, as the first image reaches them.

    Parameters
    ----------
    model : Module
        Its mode and averages stay as they are.
    input_size : int
        Height and width of an image it takes, px.

    Returns
    -------
    list of str
        Names as in ``model.named_modules()``. Layers that no image reaches in evaluation mode (an
        auxiliary head) come last.
    """
    names = {layer: name for name, layer in model.named_modules() if _has_tensors_of_its_own(layer)}
    reached: dict[str, None] = {}

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        reached[names[layer]] = None

    handles = [layer.register_forward_pre_hook(note) for layer in names]
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
    """Name the entries of ``model.state_dict()`` in the order of `layers_in_forward_order`.

    Parameters
    ----------
    model : Module
    input_size : int

    Returns
    -------
    list of str
    """
    place = {
        name: at for at, name in enumerate(layers_in_forward_order(model, input_size=input_size))
    }
    return sorted(model.state_dict(), key=lambda key: place[key.rpartition(".")[0]])


def _has_tensors_of_its_own(layer: nn.Module) -> bool:
    own = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    return len(own) > 0
