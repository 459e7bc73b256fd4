"""Run a run folder with torch."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from glomerulab.inference.engines.base import ModelOutput
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.layers import Stage, find_classifier, find_stages, spread_stages
from glomerulab.runtime.sealing import SealedFolder


class NetworkWithFeatures(nn.Module):
    """A network from bytes to logits and features; this is what is run and what is exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self._stage_features: list[Tensor] = []
        self._vector: list[Tensor] = []
        self._has_tokens = False
        for stage in spread_stages(find_stages(model)):
            # Methods of this module, so that a copy of it records its own maps.
            stage.layer.register_forward_hook(partial(self._record, stage=stage))
        find_classifier(model).register_forward_pre_hook(self._record_vector)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and features of a batch.

        Parameters
        ----------
        images : Tensor of uint8, shape (B, S, S, 3)

        Returns
        -------
        logits : Tensor of float, shape (B, K)
        features : Tensor of float, shape (B, D)
            The mean of the maps of each stage; then, for a network of tokens or without stages,
            the vector that its classifier reads.
        """
        self._stage_features.clear()
        self._vector.clear()
        self._has_tokens = False
        pixels = images.permute(0, 3, 1, 2).float() / 255.0  # (B, 3, S, S), channels last
        logits = self.model((pixels - self.mean) / self.std)
        uses_vector = self._has_tokens or not self._stage_features
        vector = self._vector if uses_vector else []
        features = torch.cat([*self._stage_features, *vector], dim=1)
        self._stage_features.clear()
        self._vector.clear()
        return logits, features

    def _record(
        self, _: nn.Module, __: tuple[Tensor, ...], output: object, *, stage: Stage
    ) -> None:
        tensor = stage.tensor(output)
        if tensor is None:
            return
        self._has_tokens |= tensor.ndim == 3
        maps = stage.maps(tensor)
        if maps is not None:
            self._stage_features.append(maps.mean(dim=(2, 3)))

    def _record_vector(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._vector.append(inputs[0].flatten(1))


class TorchEngine:
    """A run folder on the GPU if there is one, else on the CPU."""

    max_concurrency = 1  # one call takes all cores, and the hooks of two would mix their maps

    def __init__(self, folder: Path | SealedFolder) -> None:
        model, self.card = load_checkpoint(folder)
        self.weights_sha256 = _weights_hash(model)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.is_gpu = self._device.type == "cuda"
        network = NetworkWithFeatures(model, self.card.mean, self.card.std).eval()
        self.network = network.to(self._device).to(memory_format=torch.channels_last)

    @property
    def first(self) -> "TorchEngine":
        """The model that gives the features; of an ensemble the first."""
        return self

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run the network on a batch, shape (B, S, S, 3).

        A single image is run by one thread: the last bits depend on how many share a sum.
        """
        with torch.inference_mode(), _threads(1 if len(images) == 1 else None):
            logits, features = self.network(torch.from_numpy(images).to(self._device))
        return ModelOutput(logits.float().cpu().numpy(), features.float().cpu().numpy())


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
