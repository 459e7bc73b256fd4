"""Segmenters: networks that give, for each pixel, the probability of each structure.

A segmenter is a run folder of ``glomerulab train-segmenter``, or the ONNX file of another project
beside a ``segmenter.toml`` that tells what its channels are.
"""

import csv
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import expit, softmax

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.card import SegmenterCard, Triple
from glomerulab.runtime.files import read_configuration, read_content
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import SealedFolder, is_crossval

__all__ = [
    "SEGMENTER_FILE",
    "Probabilities",
    "Segmenter",
    "check_no_old_detector",
    "open_segmenter",
]

SEGMENTER_FILE = "segmenter.toml"
SCORES_FILE = "structure_scores.csv"
OLD_FILE = "detector.json"
"""In the run folder of a sliding classifier, which earlier versions trained."""
TOLERANCE = 0.01
"""Of probabilities that a network computes itself, in half precision or interpolated."""
Probabilities = npt.NDArray[np.float32]
MIN_BFLOAT16_PX = 64
"""Height and width below which maps become too small for bfloat16, see `models.hardware`."""

Channels = (
    Annotated[int, Field(ge=0)]
    | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
)
"""A channel of the output, or several whose probabilities are added up."""
Positive = Annotated[float, Field(gt=0)]


class Segmenter(Protocol):
    """A network that outlines structures, and its card."""

    card: SegmenterCard
    n_threads: int
    """Of `threads`."""

    def threads(self) -> AbstractContextManager[Executor]:
        """Return threads in which `probabilities` computes images side by side, each on one core.

        On a CPU this is quicker than one image after another on all cores, whose many small layers
        wait for the slower core.
        """
        ...

    def probabilities(self, images: npt.NDArray[np.uint8]) -> Probabilities:
        """Compute the probability of each structure at each pixel.

        Parameters
        ----------
        images : ndarray of uint8, shape (B, H, W, 3)
            At ``card.mpp``. H and W are multiples of 32; they are ``card.patch_px`` if
            ``card.has_fixed_size``.

        Returns
        -------
        ndarray of float32, shape (B, K + C, H, W)
            From 0 to 1: of the K structures of the card, then of the C cores.
        """
        ...


def check_no_old_detector(folder: Path) -> None:
    """Raise a `CheckpointError` for the run folder of a detector of an earlier version."""
    if (folder / OLD_FILE).is_file():
        raise CheckpointError(
            "the folder holds a detector of an earlier version, which slid a classifier over "
            "slides and gave ellipses; glomeruli are now outlined by a segmenter: train one on the "
            "same slides and regions with `glomerulab train-segmenter`, and give it with --detect",
            where=str(folder),
        )


def open_segmenter(folder: Path | SealedFolder) -> Segmenter:
    """Open a run folder of ``glomerulab train-segmenter``, or a folder with ``segmenter.toml``.

    Raises
    ------
    CheckpointError
        If the folder holds no segmenter, or a damaged one.
    ConfigError
        If ``segmenter.toml`` has an unknown key or an invalid value.
    RunError
        If a file is not the one that was sealed.
    """
    place = folder.folder if isinstance(folder, SealedFolder) else folder
    if not place.is_dir():
        raise CheckpointError(
            "there is no such segmenter; give the folder that `glomerulab train-segmenter` wrote, "
            f"or a folder with {SEGMENTER_FILE} and its ONNX file",
            where=str(place),
        )
    check_no_old_detector(place)
    if (place / SEGMENTER_FILE).is_file():
        return OnnxSegmenter(place)
    if is_crossval(place):
        raise CheckpointError(
            "a cross-validation has a segmenter of each fold, and one is needed here; give the "
            "folder of one, such as runs/fold-0 in it, or train without --folds",
            where=str(place),
        )
    if not any(
        (place / name).is_file() for name in ("checkpoint/checkpoint.json", "checkpoint.json")
    ):
        raise CheckpointError(
            "the folder holds no segmenter; give the folder that `glomerulab train-segmenter` "
            f"wrote, or a folder with {SEGMENTER_FILE} and its ONNX file",
            where=str(place),
        )
    return TorchSegmenter(folder)


class TorchSegmenter:
    """A run folder on the GPU if there is one, else on the CPU.

    Where the processor has bfloat16 the network runs in it: twice as fast on a CPU, and on fields
    of `aidpath_fields` 0.1 % of the pixels changed side.
    """

    def __init__(self, folder: Path | SealedFolder) -> None:
        import torch

        from glomerulab.models.hardware import has_bfloat16
        from glomerulab.models.segmentation import load_segmenter

        files = SealedFolder.of(folder)
        network, card = load_segmenter(files)
        self.card = card if card.dice else card.model_copy(update={"dice": _dice_of(files, card)})
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._has_bfloat16 = has_bfloat16(self._device)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._mean, self._std = (
            torch.tensor(values, device=self._device)[:, None, None]
            for values in (self.card.mean, self.card.std)
        )
        self.n_threads = torch.get_num_threads() if self._device.type == "cpu" else 1

    @contextmanager
    def threads(self) -> Iterator[Executor]:
        """Return threads of one core each; see `Segmenter`."""
        import torch

        n = torch.get_num_threads()
        try:
            on_one_core = partial(torch.set_num_threads, 1)
            with ThreadPoolExecutor(self.n_threads, initializer=on_one_core) as pool:
                yield pool
        finally:
            torch.set_num_threads(n)  # of threads that are started later

    def probabilities(self, images: npt.NDArray[np.uint8]) -> Probabilities:
        """Run the network; see `Segmenter`."""
        import torch

        uses_bfloat16 = self._has_bfloat16 and min(images.shape[1:3]) >= MIN_BFLOAT16_PX
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
            scaled = (pixels.float() / 255.0 - self._mean) / self._std
            with torch.autocast(self._device.type, torch.bfloat16, enabled=uses_bfloat16):
                logits = self._network(scaled)
            found: Probabilities = logits.float().sigmoid().cpu().numpy()
        return found


def _dice_of(files: SealedFolder, card: SegmenterCard) -> dict[str, float]:
    """Return the Dice that a run states beside its card, as runs of earlier versions did."""
    if not files.has(SCORES_FILE):
        return {}
    rows = csv.DictReader(files.read(SCORES_FILE)[0].decode().splitlines())
    return {
        row["structure"]: float(row["dice"])
        for row in rows
        if row["stain"] == "all" and row["dice"] and row["structure"] in card.structures
    }


class OnnxSettings(BaseModel):
    """The content of ``segmenter.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "model.onnx"
    """File beside it."""
    mpp: float = Field(gt=0)
    """Micrometres per pixel that the network was trained at."""
    structures: dict[str, Channels] = Field(min_length=1)
    """Channel of each structure, counted from 0, or a list of channels that are added up: the
    glomerulus is everything within Bowman's capsule, so a class "rest of the glomerulus" and a
    class "tuft" together. A background is not listed."""
    cores: dict[str, Channels] = Field(default_factory=dict)
    """Channel of the core of each structure's objects, if the network has any."""
    head: Literal["softmax", "sigmoid", "none"]
    """What turns the output into probabilities; ``none`` if it holds them already."""
    scale: float = Field(default=1.0 / 255.0, gt=0)
    """Bytes are multiplied by it first."""
    mean: Triple = (0.0, 0.0, 0.0)
    """Then this is subtracted."""
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    """Then they are divided by this."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    patch_px: int = Field(default=512, ge=32)
    """Height and width of a tile; a network of fixed size has its own."""
    stains: tuple[str, ...] = ()
    """That it was trained on."""
    dice: dict[str, float] = Field(default_factory=dict)
    """Of structures on images that it never saw, from 0 to 1; one with less than 0.2 is not
    counted."""


class OnnxSegmenter:
    """The network of another project in ONNX Runtime, on the CPU."""

    n_threads = 1
    """ONNX Runtime has threads of its own."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        toml = folder / SEGMENTER_FILE
        _, values = read_configuration(toml)
        try:
            self._settings = settings = OnnxSettings.model_validate(values)
        except ValidationError as error:
            raise ConfigError(first_problem(error, OnnxSettings), where=str(toml)) from error
        path = folder / settings.model
        network = read_content(
            path,
            "ONNX file of the segmenter",
            error=CheckpointError,
            way_out=f"put it beside {SEGMENTER_FILE}, or correct model in it",
        )
        options = onnxruntime.SessionOptions()
        # Weights in other files would be read from the working folder.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.devnull
        )
        try:
            self._session = onnxruntime.InferenceSession(
                network, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise CheckpointError(
                f"ONNX Runtime cannot load the segmenter ({str(error).splitlines()[0]}); export it "
                "again as one file with its weights",
                where=str(path),
            ) from error
        self._where = str(path)
        self._input = self._session.get_inputs()[0]
        self._is_channels_last, fixed = self._read_input_shape()
        try:
            self.card = SegmenterCard(
                architecture="onnx",
                structures=tuple(settings.structures),
                cores=tuple(settings.cores),
                mpp=settings.mpp,
                patch_px=fixed or settings.patch_px,
                has_fixed_size=fixed is not None,
                mean=settings.mean,
                std=settings.std,
                stains_seen=settings.stains,
                dice=settings.dice,
                # With what the channels are: other settings are another model, other scores not.
                weights_sha256=hashlib.sha256(
                    network + settings.model_dump_json(exclude={"dice"}).encode()
                ).hexdigest(),
            )
        except ValidationError as error:
            raise ConfigError(first_problem(error), where=str(toml)) from error
        self._check_output()

    def threads(self) -> AbstractContextManager[Executor]:
        """Return one thread; see `Segmenter`."""
        return ThreadPoolExecutor(self.n_threads)

    def probabilities(self, images: npt.NDArray[np.uint8]) -> Probabilities:
        """Run the network; see `Segmenter`."""
        n_at_once = self._input.shape[0]
        size = n_at_once if isinstance(n_at_once, int) else len(images)
        parts = [images[at : at + size] for at in range(0, len(images), size)]
        return np.concatenate([self._run(part, size) for part in parts])

    def _run(self, images: npt.NDArray[np.uint8], n_at_once: int) -> Probabilities:
        settings = self._settings
        if settings.channel_order == "bgr":
            images = images[..., ::-1]
        mean, std = (np.array(one, np.float32) for one in (settings.mean, settings.std))
        pixels = (images * np.float32(settings.scale) - mean) / std
        if not self._is_channels_last:
            pixels = pixels.transpose(0, 3, 1, 2)
        missing = n_at_once - len(pixels)  # of a network that takes batches of one size
        pixels = np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])
        kinds = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
        given = np.ascontiguousarray(pixels, dtype=kinds.get(self._input.type, np.float32))
        output = self._session.run(None, {self._input.name: given})[0]
        values = np.asarray(output, dtype=np.float32)[: len(images)]
        if self._is_channels_last:
            values = values.transpose(0, 3, 1, 2)
        if values.ndim != 4 or values.shape[2:] != images.shape[1:3]:
            raise CheckpointError(
                f"the segmenter returns {values.shape[1:]} for an image of {images.shape[1:3]} "
                "pixels; its output must have the height and width of its input",
                where=self._where,
            )
        activate: dict[str, Any] = {"softmax": lambda x: softmax(x, axis=1), "sigmoid": expit}
        found = activate.get(settings.head, lambda x: x)(values)
        if settings.head == "none" and (values.min() < -TOLERANCE or values.max() > 1 + TOLERANCE):
            raise ConfigError(
                f"the output of the network is from {values.min():.3g} to {values.max():.3g}, and "
                "probabilities are from 0 to 1; set head to softmax or sigmoid",
                where=str(Path(self._where).with_name(SEGMENTER_FILE)),
            )
        channels = [*settings.structures.values(), *settings.cores.values()]
        picked = [found[:, [one] if isinstance(one, int) else list(one)].sum(1) for one in channels]
        return cast("Probabilities", np.clip(np.stack(picked, axis=1), 0, 1).astype(np.float32))

    def _read_input_shape(self) -> tuple[bool, int | None]:
        """Return whether colours come last, and the height and width if they are fixed."""
        shape = self._input.shape
        if len(shape) != 4 or 3 not in {shape[1], shape[3]}:
            raise CheckpointError(
                f"the input of the segmenter has shape {shape}; it must take RGB images, "
                "(B, 3, H, W) or (B, H, W, 3)",
                where=self._where,
            )
        is_last = shape[1] != 3
        height, width = shape[1:3] if is_last else shape[2:4]
        if not (isinstance(height, int) and isinstance(width, int)):
            return is_last, None
        if height != width or height < 32:
            raise CheckpointError(
                f"the segmenter takes images of {width} x {height} pixels; it must take squares of "
                "at least 32",
                where=self._where,
            )
        return is_last, height

    def _check_output(self) -> None:
        """Run one image, so that a wrong channel is found before a slide is read."""
        side = self.card.patch_px if self.card.has_fixed_size else 64
        try:
            self.probabilities(np.full((1, side, side, 3), 200, np.uint8))
        except IndexError as error:
            numbers = [*self._settings.structures.values(), *self._settings.cores.values()]
            last = max(one if isinstance(one, int) else max(one) for one in numbers)
            raise ConfigError(
                f"{SEGMENTER_FILE} names channel {last}, which the output of the network does not "
                "have; channels are counted from 0",
                where=str(Path(self._where).with_name(SEGMENTER_FILE)),
            ) from error
        except (CheckpointError, ConfigError):
            raise
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise CheckpointError(
                f"the segmenter does not run on an image of {side} pixels "
                f"({str(error).splitlines()[0]}); export it for images of any size",
                where=self._where,
            ) from error
