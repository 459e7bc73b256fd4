"""Image files to network inputs: decoding, resizing, and the normalisation constants."""

from pathlib import Path

import torch
from torch import Tensor

from glomerulab.images import read_image, resized

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "read_crop"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_crop(path: Path, input_size: int) -> Tensor:
    """Decode an image file and resize it to a square, antialiased.

    Parameters
    ----------
    path : Path
    input_size : int
        Height and width, px.

    Returns
    -------
    Tensor of uint8, shape (3, input_size, input_size)
    """
    pixels = resized(read_image(path), input_size, input_size)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
