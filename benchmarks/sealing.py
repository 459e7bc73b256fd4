"""What the check of a seal costs when a checkpoint is loaded: CPU seconds, best of five.

Run: PYTHONPATH=src python benchmarks/sealing.py
"""

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import load_checkpoint, save_checkpoint
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import create_model
from glomerulab.runtime.sealing import SealedFolder, write_seal
from glomerulab.taxonomy import load_taxonomy

MODEL = "improved_seresnet50"


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    logging.disable()  # the warning of a model without a seal
    paper = load_taxonomy("paper")
    card = ModelCard(
        model=MODEL,
        taxonomy_name=paper.name,
        labels=paper.labels,
        input_size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        save_checkpoint(run / "checkpoint", create_model(MODEL, 4).state_dict(), card)
        content = next((run / "checkpoint").glob("*.safetensors")).read_bytes()
        without = _seconds(lambda: load_checkpoint(run))
        write_seal(run)
        print(f"checkpoint of {len(content) / 1e6:.0f} MB")
        print(f"loaded without a seal: {without:.2f} s")
        print(f"loaded under its seal: {_seconds(lambda: load_checkpoint(run)):.2f} s")
        print(f"folder opened: {1e3 * _seconds(lambda: SealedFolder(run)):.1f} ms")
        print(f"one SHA-256: {_seconds(lambda: hashlib.sha256(content)):.2f} s")


if __name__ == "__main__":
    main()
