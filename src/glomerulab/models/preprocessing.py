"""Read image files as network inputs; normalisation constants."""

from pathlib import Path

import torch
from torch import Tensor

from glomerulab.images import read_image, resized

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "read_crop"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_crop(path: Path, input_size: int) -> Tensor:
    """Read an image file as uint8 of shape (3, input_size, input_size), antialiased."""
    pixels = resized(read_image(path), input_size, input_size)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
