"""Where in a network its last maps and its last vector are, whichever network it is.

Explanations look at the maps of the last stage, figures of similarity at the vector that the
classifier sees.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["classifier", "features_seen", "last_stage", "stages_of"]


def last_stage(model: nn.Module) -> nn.Module:
    """Return the layer whose output is the last one with height and width.

    Parameters
    ----------
    model : Module
        Any that `glomerulab.models.registry.create_model` builds.

    Returns
    -------
    Module
        Gives maps of shape (B, C, H, W).

    Raises
    ------
    ValueError
        If the network does not say where its stages are, as some of timm do not.
    """
    return stages_of(model)[-1]


def stages_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose outputs are the maps of each stage.

    Parameters
    ----------
    model : Module

    Returns
    -------
    list of Module
        In forward order; each gives maps of shape (B, C, H, W).

    Raises
    ------
    ValueError
        As `last_stage` does.
    """
    stages = getattr(model, "stages", None)
    stated = getattr(model, "feature_info", None)
    if stated:
        return [model.get_submodule(str(stage["module"])) for stage in stated]
    if isinstance(stages, nn.ModuleList) and len(stages) > 0:
        return list(stages)
    raise ValueError(f"{type(model).__name__} does not say where its last stage is")


def classifier(model: nn.Module) -> nn.Linear:
    """Return the layer that turns the vector of an image into logits.

    Parameters
    ----------
    model : Module

    Returns
    -------
    Linear

    Raises
    ------
    ValueError
        If the network does not end in a fully connected layer.
    """
    of_timm = getattr(model, "get_classifier", None)
    found = of_timm() if callable(of_timm) else getattr(model, "classifier", None)
    if isinstance(found, nn.Linear):
        return found
    raise ValueError(f"{type(model).__name__} does not end in a fully connected layer")


@contextmanager
def features_seen(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the vectors that the classifier is given while the block runs.

    Parameters
    ----------
    model : Module

    Yields
    ------
    list of Tensor
        One of shape (B, D), on the CPU, for every batch that goes through the model.
    """
    seen: list[Tensor] = []
    handle = classifier(model).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().float().cpu())
    )
    try:
        yield seen
    finally:
        handle.remove()
