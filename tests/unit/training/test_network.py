from pathlib import Path

import numpy as np
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.images import write_image
from glomerulab.training.config import TrainConfig
from glomerulab.training.network import complete_network


@pytest.mark.parametrize(
    ("sides", "network", "expected"),
    [
        ([(100, 90)] * 3, "lite2", 260),  # never below the size that the network was made for
        ([(300, 310), (318, 300), (9000, 9000)], "lite2", 320),
        ([(1000, 500)], "lite2", 448),
        ([(1000, 500)], "timm:vit_tiny_patch16_224", 224),
    ],
)
def test_the_input_size_is_that_of_the_usual_image(
    config: TrainConfig,
    tmp_path: Path,
    sides: list[tuple[int, int]],
    network: str,
    expected: int,
) -> None:
    manifest = read_manifest(config.manifest)
    table = manifest.table.iloc[: len(sides)].copy()
    for number, (width, height) in enumerate(sides):
        write_image(np.zeros((height, width, 3), np.uint8), tmp_path / f"{number}.png")
    table["image_path"] = [str(tmp_path / f"{number}.png") for number in range(len(sides))]
    model = config.model.model_copy(
        update={"name": network, "options": {}, "max_input_size": 448, "input_size": None}
    )
    wanted = config.model_copy(update={"model": model})
    completed, _ = complete_network(wanted, manifest.with_table(table))
    assert completed.model.input_size == expected
