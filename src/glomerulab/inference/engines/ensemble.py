"""Run the models of a cross-validation together: their probabilities are averaged."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.base import ModelOutput, probabilities_of
from glomerulab.inference.engines.torch_engine import TorchEngine
from glomerulab.runtime.sealing import SealedFolder, crossval_runs

SMALLEST = 1e-12


class EnsembleEngine:
    """All models of a cross-validated folder.

    Its logits give the mean of the probabilities; its features are those of the first model.
    """

    max_concurrency = 1

    def __init__(self, folder: Path | SealedFolder) -> None:
        runs = crossval_runs(SealedFolder.of(folder).folder)
        self.members = [TorchEngine(run) for run in runs]
        self.card = self.members[0].card
        self.is_gpu = self.members[0].is_gpu
        for run, member in zip(runs, self.members, strict=True):
            expected, found = (
                card.model_dump(include={"labels", "head", "input_size", "mean", "std"})
                for card in (self.card, member.card)
            )
            if expected != found:
                raise CheckpointError(
                    "this model has other labels or another input than the first model of the "
                    "cross-validation; cross-validate again",
                    where=str(run),
                )
        names = "".join(member.weights_sha256 for member in self.members)
        self.weights_sha256 = hashlib.sha256(names.encode()).hexdigest()

    @property
    def first(self) -> TorchEngine:
        """The model whose features are those of the ensemble."""
        return self.members[0]

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run every network on a batch, shape (B, S, S, 3)."""
        outputs = [member.predict(images) for member in self.members]
        means = np.mean([probabilities_of(one.logits, self.card.head) for one in outputs], axis=0)
        kept = np.clip(means, SMALLEST, 1 - SMALLEST)
        logits = np.log(kept) if self.card.head == "softmax" else logit(kept)
        return ModelOutput(logits.astype(np.float32), outputs[0].features)
