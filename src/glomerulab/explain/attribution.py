"""Saliency maps by three different methods, and how to draw them over an image.

Captum computes the maps; the choice of layer, baseline and sign is ours. Every map is the positive
evidence for one label: negative evidence is clipped at 0.
"""

from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from glomerulab.images import RgbImage
from glomerulab.models.layers import Stage, find_stages

__all__ = ["METHODS", "Method", "attribute", "overlay_beside", "usable_methods"]

Method = Literal["grad-cam", "integrated-gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

N_STEPS = 32
"""Points of the path of integrated gradients."""
BATCH = 16
WINDOWS_ACROSS = 8
"""An occluding patch is an eighth of the image wide, and moves by half its width."""

COLOURS = "viridis"  # rises in lightness too: legible without colour, and in print
MAX_OPACITY = 0.75
BRIGHTEST = 0.995
OUTLINE = (213, 94, 0)


def attribute(model: nn.Module, image: Tensor, target: int, method: Method) -> Tensor:
    """Compute the positive evidence of each pixel for a label.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    image : Tensor of float, shape (3, H, W)
        Normalised, on the device of the model.
    target : int
        Index of the label among the logits.
    method : {"grad-cam", "integrated-gradients", "occlusion"}

    Returns
    -------
    Tensor of float32, shape (H, W)
        At least 0, on the CPU; all 0 if there is no evidence for the label.

    Raises
    ------
    ValueError
        If the method is unknown, or the model has no maps with height and width (Grad-CAM).

    Notes
    -----
    Of the logit, not the probability: under softmax a probability also rises when another logit
    falls. Grad-CAM: Selvaraju et al. 2017, on the last stage whose maps the logit depends on (of a
    transformer that reads its class token, the last block but one). Integrated gradients:
    Sundararajan et al. 2017, from white glass. Occlusion: Zeiler & Fergus 2014, patches of
    the image's mean colour, since a white one would look like a lumen.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    batch = image[None]
    if method == "grad-cam":
        saliency = _grad_cam(model, batch, target)
    elif method == "integrated-gradients":
        saliency = _integrated_gradients(model, batch, target)
    else:
        saliency = _occlusion(model, batch, target)
    return saliency.detach().float().cpu().clamp(min=0.0)


def mean_colour(image: Tensor) -> Tensor:
    """Return the mean of each channel, shape (3, 1, 1), of an image of shape (3, H, W)."""
    return image.mean(dim=(-2, -1), keepdim=True)


def overlay_beside(
    image: RgbImage,
    saliency: npt.NDArray[np.float32],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> RgbImage:
    """Draw the image, and beside it its overlay, shape (H, 2 * W, 3); see `heatmap_overlay`."""
    return np.concatenate([image, heatmap_overlay(image, saliency, mask=mask)], axis=1)


def heatmap_overlay(
    image: RgbImage,
    saliency: npt.NDArray[np.float32],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> RgbImage:
    """Draw a saliency map over its image, in grey, so that every colour means saliency.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    saliency : ndarray of float, shape (h, w)
        At least 0; scaled to its own brightest pixels and resized to the image.
    mask : ndarray of bool, shape (h, w), optional
        A lesion; its outline is drawn in orange.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        The more salient, the more opaque and the brighter.
    """
    height, width = image.shape[:2]
    # Not by the maximum: the single brightest pixel of a noisy map would hide all others.
    top = max(float(np.quantile(saliency, BRIGHTEST)), float(saliency.max()) / 20.0, 1e-12)
    heat = _resized(saliency / top, width, height).clip(0, 1)
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    colour = 255.0 * colormaps[COLOURS](heat)[..., :3]
    opacity = (MAX_OPACITY * np.sqrt(heat))[..., None]
    blended = grey * (1.0 - opacity) + colour * opacity
    if mask is not None:
        blended[_edge(_resized(mask.astype(np.float32), width, height) >= 0.5)] = OUTLINE
    drawn: RgbImage = blended.round().astype(np.uint8)
    return drawn


def usable_methods(model: nn.Module, *, input_size: int) -> tuple[Method, ...]:
    """Return the methods that work for a network: Grad-CAM needs maps with height and width."""
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, input_size, input_size, device=device)
    has_maps = bool(_stage_maps(model, image, target=0))
    return tuple(method for method in METHODS if has_maps or method != "grad-cam")


def _grad_cam(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    # Not Captum's: it takes the second axis for the channels, which holds the tokens or rows of a
    # transformer.
    found = _stage_maps(model, batch, target=target)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no maps with height and width, which grad-cam needs; use "
            "integrated-gradients or occlusion"
        )
    maps, gradient = next((one for one in reversed(found) if one[1].any()), found[-1])
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (1, C, 1, 1)
    evidence = (weights * maps).sum(dim=1, keepdim=True).relu()
    return interpolate(evidence, batch.shape[-2:], mode="bilinear", align_corners=False)[0, 0]


def _stage_maps(model: nn.Module, batch: Tensor, *, target: int) -> list[tuple[Tensor, Tensor]]:
    """Return the maps of each stage, shape (1, C, H, W), and the gradient of a logit by them."""
    outputs: list[tuple[Stage, Tensor]] = []

    def record(_: nn.Module, __: object, output: object, *, stage: Stage) -> None:
        tensor = stage.tensor(output)
        if tensor is not None and stage.maps(tensor) is not None:
            outputs.append((stage, tensor))

    stages = find_stages(model)
    handles = [stage.layer.register_forward_hook(partial(record, stage=stage)) for stage in stages]
    try:
        with torch.enable_grad():
            logit = model(batch.detach().requires_grad_())[0, target]
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for stage, tensor in outputs:
        (gradient,) = torch.autograd.grad(
            logit, tensor, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        maps, slopes = stage.maps(tensor.detach()), stage.maps(gradient)
        if maps is not None and slopes is not None:
            found.append((maps, slopes))
    return found


def _integrated_gradients(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    from captum.attr import IntegratedGradients

    white = batch.amax(dim=(-2, -1), keepdim=True).expand_as(batch)
    gradients = IntegratedGradients(model).attribute(
        batch, baselines=white, target=target, n_steps=N_STEPS, internal_batch_size=BATCH
    )
    summed: Tensor = gradients.sum(dim=1)[0]
    return summed


def _occlusion(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    from captum.attr import Occlusion

    window = max(1, min(batch.shape[-2:]) // WINDOWS_ACROSS)
    stride = max(1, window // 2)
    with torch.inference_mode():
        differences = Occlusion(model).attribute(
            batch,
            sliding_window_shapes=(batch.shape[1], window, window),
            strides=(batch.shape[1], stride, stride),
            baselines=mean_colour(batch).expand_as(batch),
            target=target,
            perturbations_per_eval=BATCH,
        )
    saliency: Tensor = differences[0].mean(dim=0)  # every channel holds the value of the patch
    return saliency


def _resized(values: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _edge(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels inside that are within two pixels of one outside."""
    padded = np.pad(inside, 2, mode="edge")
    height, width = inside.shape
    shifts = [(0, 2), (4, 2), (2, 0), (2, 4)]
    kept = np.logical_and.reduce([padded[y : y + height, x : x + width] for y, x in shifts])
    return np.asarray(inside & ~kept, dtype=np.bool_)
