"""Training: the full loop on real JPEG crops against the bare step on tensors, and peak memory.

Run: ``OMP_NUM_THREADS=2 python benchmarks/training.py [MODEL]`` with real images under
GLOMERULAB_REAL_DATA (default ``../shared/data``). Prints a Markdown table. Rounds of both sides
alternate, so that a busy machine slows both; the best of each counts.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.models.hardware import has_bfloat16, processor_name
from glomerulab.models.registry import create_model
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training import loop
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import CropDataset, ItemKey, batches
from glomerulab.training.losses import loss_sum
from glomerulab.training.state import TrainingState

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
N_IMAGES, N_ROUNDS, SIDE_PX, BATCH_SIZE, INPUT_SIZE = 64, 4, 512, 16, 224
TWO = Taxonomy("glas", (Label(id="benign", name="Benign"), Label(id="malignant", name="Malignant")))


def real_crops(folder: Path) -> Manifest:
    """Cut one crop of 512 px from each real field, as JPEG."""
    rows = []
    for path in sorted((REAL_DATA / "glas_colon_he" / "images").iterdir()):
        with Image.open(path) as field:
            if min(field.size) < SIDE_PX or len(rows) == N_IMAGES:
                continue
            field.convert("RGB").crop((0, 0, SIDE_PX, SIDE_PX)).save(
                folder / f"{len(rows)}.jpg", quality=90
            )
        label = len(rows) % 2
        row = {"image_id": path.name, "image_path": f"{len(rows)}.jpg", "benign": label}
        rows.append(row | {"malignant": 1 - label})
    return manifest_from_rows(pd.DataFrame(rows), folder=folder, taxonomy=TWO)


def bare_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: list[tuple[Tensor, Tensor]],
    *,
    use_bfloat16: bool,
) -> None:
    model.train()
    for images, labels in parts:
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
            logits = model(images)
        loss = loss_sum(logits, labels, "softmax") / len(images)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "improved_seresnet50"
    use_bfloat16 = has_bfloat16(torch.device("cpu"))
    folder = Path(tempfile.mkdtemp())
    manifest = real_crops(folder)
    config = TrainConfig.model_validate(
        {"manifest": "m", "out": "o", "batch_size": BATCH_SIZE, "model": {"name": name}}
    )
    compute = loop.Compute(Accelerator(cpu=True), use_bfloat16=use_bfloat16)
    model = create_model(name, 2).to(memory_format=torch.channels_last)
    state = TrainingState(model, loop.make_optimizer(model, config.optimizer), [])
    unaugmented = CropDataset(manifest, input_size=INPUT_SIZE)
    keys = [
        [ItemKey(row, 0) for row in range(at, min(at + BATCH_SIZE, len(unaugmented)))]
        for at in range(0, len(unaugmented), BATCH_SIZE)
    ]
    in_memory = [
        (batch.images.contiguous(memory_format=torch.channels_last), batch.labels)
        for batch in batches(unaugmented, keys)
    ]

    def epoch_seconds(dataset: CropDataset, epoch: int) -> float:
        start = time.perf_counter()
        loop._train_epoch(  # noqa: SLF001 - an epoch without the work after it
            state,
            dataset,
            config,
            compute,
            epoch,
            weights=None,
            progress=iter(range(10**6)),
        )
        return time.perf_counter() - start

    bare_epoch(model, state.optimizer, in_memory[:1], use_bfloat16=use_bfloat16)  # warms up
    bare, first, later = [], [], []
    for number in range(N_ROUNDS):
        start = time.perf_counter()
        bare_epoch(model, state.optimizer, in_memory, use_bfloat16=use_bfloat16)
        bare.append(time.perf_counter() - start)
        dataset = CropDataset(manifest, input_size=INPUT_SIZE, augment=config.augmentation)
        first.append(epoch_seconds(dataset, 2 * number))
        later.append(epoch_seconds(dataset, 2 * number + 1))
    n = len(manifest.table)
    print(f"{processor_name()}, {torch.get_num_threads()} threads, bfloat16 {use_bfloat16}, {name}")
    print("\n| epoch | img/s | of the bare step |\n|---|---|---|")
    timings = {"bare step on tensors": bare, "first epoch: JPEGs decoded": first, "later": later}
    for what, seconds in timings.items():
        print(f"| {what} | {n / min(seconds):.1f} | {min(bare) / min(seconds):.3f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory, batch {BATCH_SIZE}, {INPUT_SIZE} px: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
