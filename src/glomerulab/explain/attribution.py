"""Saliency maps by three different methods, and how to draw them over an image.

Captum computes the maps; the choice of layer, baseline and sign is ours. Every map is the positive
evidence for one label: negative evidence is clipped at 0.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from glomerulab.images import RgbImage
from glomerulab.models.layers import last_stage

__all__ = ["METHODS", "Method", "attribute", "overlay_beside"]

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
        If the method is unknown, or the model declares no last stage (Grad-CAM).

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
