"""Single operations on one image: turn, flip, add noise, mix, vary the stain.

Pure functions of float tensors (3, H, W) in 0 to 1; whatever is random is drawn by the caller.
"""

import math

import torch
from torch import Tensor

__all__ = ["add_noise", "flip", "jitter_optical_density", "mix", "rotate"]

DARKEST = 1.0 / 255.0


def rotate(image: Tensor, degrees: float) -> Tensor:
    """Turn an image about its centre; what would be empty is filled by reflection.

    Parameters
    ----------
    image : Tensor of float, shape (3, H, W)
    degrees : float
        Counter-clockwise. Multiples of 90 on square images move pixels without mixing them.

    Returns
    -------
    Tensor of float, shape (3, H, W)
    """
    _, height, width = image.shape
    quarters = degrees / 90.0
    if height == width and quarters == round(quarters):
        return torch.rot90(image, round(quarters) % 4, dims=(1, 2))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid measures each axis from -1 to 1: undo that where the sides differ.
    theta = torch.tensor(
        [[[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]],
        dtype=image.dtype,
    )
    grid = torch.nn.functional.affine_grid(theta, [1, *image.shape], align_corners=False)
    turned = torch.nn.functional.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return turned[0]


def flip(image: Tensor, *, horizontally: bool, vertically: bool) -> Tensor:
    """Mirror an image, shape (3, H, W), along x, y, both or neither."""
    axes = [axis for axis, wanted in ((2, horizontally), (1, vertically)) if wanted]
    return image.flip(axes) if axes else image


def add_noise(image: Tensor, noise: Tensor) -> Tensor:
    """Add noise of the same shape and keep the result from 0 to 1."""
    return (image + noise).clamp(0.0, 1.0)


def mix(image: Tensor, partner: Tensor, share: float) -> Tensor:
    """Blend two images of the same labels (mixup, Zhang et al. 2018); labels need no blending.

    Parameters
    ----------
    image, partner : Tensor of float, shape (3, H, W)
    share : float
        Of `image`, from 0 to 1.

    Returns
    -------
    Tensor of float, shape (3, H, W)

    Raises
    ------
    ValueError
        If the shapes differ or `share` is outside 0 to 1.
    """
    if image.shape != partner.shape:
        raise ValueError(f"shapes differ: {tuple(image.shape)} and {tuple(partner.shape)}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    return share * image + (1.0 - share) * partner


def jitter_optical_density(image: Tensor, factors: Tensor) -> Tensor:
    """Make each colour channel absorb more or less, as thicker cuts and other batches of dye do.

    Parameters
    ----------
    image : Tensor of float, shape (3, H, W)
        White glass is 1.
    factors : Tensor of float, shape (3,)
        1 leaves a channel as it is; 0 makes it white.

    Returns
    -------
    Tensor of float, shape (3, H, W)

    Notes
    -----
    Optical density is -log of the transmitted share, so that scaling it is a power of the share.
    Ours, not the paper's; it needs no stain matrix, so it suits every stain.
    """
    return image.clamp(DARKEST, 1.0) ** factors[:, None, None]
