"""Saliency by three methods that work differently, so that each can be held against the others.

Captum computes; what is ours is the choice of layer, baseline and sign. Every map is the positive
evidence for one label: what spoke against it is cut at 0.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from glomerulab.models.feature_layers import last_stage

__all__ = ["METHODS", "Method", "attribute", "mean_colour"]

Method = Literal["grad-cam", "integrated-gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

N_STEPS = 32
"""Points of the path of integrated gradients."""
N_AT_ONCE = 16
WINDOWS_ACROSS = 8
"""An occluding patch is an eighth of the image wide, and moves by half its width."""


def attribute(model: nn.Module, image: Tensor, target: int, method: Method) -> Tensor:
    """Say how much each pixel of an image spoke for a label.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    image : Tensor of float, shape (3, H, W)
        Normalised, on the device of the model.
    target : int
        Place of the label among the logits.
    method : {"grad-cam", "integrated-gradients", "occlusion"}

    Returns
    -------
    Tensor of float32, shape (H, W)
        At least 0, on the CPU; all 0 where nothing spoke for the label.

    Raises
    ------
    ValueError
        If the method is unknown, or the model has no last stage (Grad-CAM).

    Notes
    -----
    Of the logit, not the probability: under softmax a probability also rises when another logit
    falls. Grad-CAM: Selvaraju et al. 2017, on the last stage. Integrated gradients: Sundararajan
    et al. 2017, from white glass. Occlusion: Zeiler & Fergus 2014, patches of the image's mean
    colour, since a white one would look like a lumen.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    batch = image[None]
    if method == "grad-cam":
        found = _grad_cam(model, batch, target)
    elif method == "integrated-gradients":
        found = _integrated_gradients(model, batch, target)
    else:
        found = _occlusion(model, batch, target)
    return found.detach().float().cpu().clamp(min=0.0)


def mean_colour(image: Tensor) -> Tensor:
    """Return the mean of each channel, shape (3, 1, 1), of an image of shape (3, H, W)."""
    return image.mean(dim=(-2, -1), keepdim=True)


def _grad_cam(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    from captum.attr import LayerGradCam

    maps = LayerGradCam(model, last_stage(model)).attribute(
        batch, target=target, relu_attributions=True
    )
    # Captum's own upsampling is nearest: blocks whose maximum would be a corner.
    return interpolate(maps, batch.shape[-2:], mode="bilinear", align_corners=False)[0, 0]


def _integrated_gradients(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    from captum.attr import IntegratedGradients

    white = batch.amax(dim=(-2, -1), keepdim=True).expand_as(batch)
    found = IntegratedGradients(model).attribute(
        batch, baselines=white, target=target, n_steps=N_STEPS, internal_batch_size=N_AT_ONCE
    )
    summed: Tensor = found.sum(dim=1)[0]
    return summed


def _occlusion(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    from captum.attr import Occlusion

    window = max(1, min(batch.shape[-2:]) // WINDOWS_ACROSS)
    stride = max(1, window // 2)
    with torch.inference_mode():
        found = Occlusion(model).attribute(
            batch,
            sliding_window_shapes=(batch.shape[1], window, window),
            strides=(batch.shape[1], stride, stride),
            baselines=mean_colour(batch).expand_as(batch),
            target=target,
            perturbations_per_eval=N_AT_ONCE,
        )
    one: Tensor = found[0].mean(dim=0)  # every channel has the value of the patch
    return one
