"""Small networks with hand-set weights that outline what is dark, and slides for them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glomerulab.geometry import Region
from glomerulab.models.card import SegmenterCard
from glomerulab.slides.pyramid import write_pyramid

__all__ = [
    "ALL_STRUCTURES",
    "ByColour",
    "BySurroundings",
    "disc_outline",
    "disc_pixels",
    "disc_slide",
    "write_segmenter",
]

ALL_STRUCTURES = {
    "cortex": 0,
    "tubule": 0,
    "glomerulus": 1,
    "atrophic_tubule": 1,
    "fibrosis": 1,
    "artery": 1,
}
TISSUE, GLOMERULUS, GLASS = (225, 170, 200), (120, 60, 140), (243, 242, 241)


def disc_outline(x: float, y: float, radius: float):
    """A disc as a polygon."""
    angles = np.arange(48) * 2 * np.pi / 48
    return tuple((float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angles)


def disc_pixels(discs, size=(1600, 900), border=60):
    """Tissue with a border of glass and discs (x, y, radius) in pixels."""
    width, height = size
    rows, columns = np.indices((height, width))
    pixels = np.full((height, width, 3), GLASS, dtype=np.uint8)
    pixels[border : height - border, border : width - border] = TISSUE
    for x, y, radius in discs:
        pixels[np.hypot(columns + 0.5 - x, rows + 0.5 - y) < radius] = GLOMERULUS
    return pixels


def disc_slide(path: Path, discs, *, size=(1600, 900), border=60, mpp=1.0) -> list[Region]:
    """Write a slide of discs; return their outlines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(disc_pixels(discs, size, border), path, mpp=mpp, compression="deflate")
    return [
        Region(f"{path.stem}-g{n}", disc_outline(*disc)) for n, disc in enumerate(discs, start=1)
    ]


class ByColour:
    """Cortex where pixels are darker than glass, glomerulus where they are dark: exact."""

    def __init__(self, *, mpp: float = 1.0, **card) -> None:
        self.card = SegmenterCard(
            structures=("cortex", "glomerulus"),
            cores=("glomerulus",),
            mpp=mpp,
            patch_px=64,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            weights_sha256="cd" * 32,
            **card,
        )
        self.network = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.network.weight[:] = -100.0 / 3
            self.network.bias[:] = 100.0 * torch.tensor([0.87, 0.55, 0.55])
        self.shapes: list[tuple[int, ...]] = []

    n_threads = 2

    def threads(self):
        """Threads for images side by side."""
        return ThreadPoolExecutor(self.n_threads)

    @torch.inference_mode()
    def probabilities(self, images):
        """Probabilities of a batch, shape (B, 3, H, W)."""
        self.shapes.append(images.shape)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
        return self.network(pixels).sigmoid().numpy()


def write_segmenter(
    folder: Path, *, mpp: float = 1.0, structures=("cortex", "glomerulus"), more: str = ""
) -> Path:
    """Write the network of `ByColour` as the ONNX folder of another project.

    `structures` may name the channel of each, 0 for tissue and 1 for what is dark; `more` is put on
    top of its ``segmenter.toml``.
    """
    import onnx
    from onnx import TensorProto, helper

    bias = np.float32([87.0, 55.0])
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "by colour",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("b", 3, "h", "w"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", 2, "h", "w"))],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, (2, 3, 1, 1), [-100.0 / 3] * 6),
            helper.make_tensor("bias", TensorProto.FLOAT, (2,), bias),
        ],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    if not isinstance(structures, dict):
        structures = {name: number for number, name in enumerate(structures)}
    channels = "".join(f"{name} = {number}\n" for name, number in structures.items())
    (folder / "segmenter.toml").write_text(
        f'{more}\nmpp = {mpp}\nhead = "sigmoid"\n[structures]\n{channels}'
    )
    return folder


class BySurroundings(ByColour):
    """The same from blurred and pooled pixels, so that a pixel depends on those within 50."""

    def __init__(self, **card) -> None:
        super().__init__(**card)
        blur = nn.Conv2d(3, 3, 9, padding=4, groups=3)
        with torch.no_grad():
            blur.weight[:] = 1.0 / 81
            blur.bias[:] = 0.75
        self.network = nn.Sequential(
            Minus(0.75),
            nn.AvgPool2d(4),
            blur,
            nn.Upsample(scale_factor=4, mode="bilinear"),
            self.network,
        )


class Minus(nn.Module):
    """Subtracts the mean colour, as networks do, so that the zeros around a tile are tissue."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, pixels):
        """Return the pixels without the mean."""
        return pixels - self.mean
