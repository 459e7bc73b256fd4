"""Results that pages of stain checks and explanations show, and pictures of labels."""

from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.evaluation.stain_check import (
    SourcePrediction,
    StainCheck,
    StainEmbedding,
    StainPart,
)
from glomerulab.images import write_image

__all__ = ["CONTROLS", "explanation_table", "stain_check", "write_references"]


def stain_check(folder: Path) -> StainCheck:
    """Twelve images of three slides, whose normalisation helped."""
    rng = np.random.default_rng(0)
    rows, paths = [], []
    for k in range(12):
        path = folder / f"{k}.png"
        write_image(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), path)
        paths.append((path, path))
        rows.append(
            {
                "image_id": f"<b>{k}</b>",
                "patient_id": "p",
                "slide_id": f"s{k % 3}",
                "stain": "HE",
                "stain_status": "normalized",
                "nmi_before": 0.7 + 0.01 * k,
                "nmi_after": 0.75,
                "ssim": 0.95,
                "pcc": 0.97,
                "saturated_before": 0.01,
                "saturated_after": 0.02,
                "background_before": 0.2,
                "background_after": 0.21,
                "background_delta_e": 1.5,
            }
        )
    embedding = StainEmbedding(rng.normal(size=(12, 2)), 0.9)
    return StainCheck(
        table=pd.DataFrame(rows),
        column="slide_id",
        parts=(
            StainPart(
                stain="HE",
                rows=np.arange(12),
                before=embedding,
                after=embedding,
                prediction=SourcePrediction("slide_id", "image_id", 3, 12, 0.9, 0.4, 0.45),
                why_no_prediction="",
            ),
        ),
        unreadable=(),
        paths=tuple(paths),
        targets={"HE": paths[0][0]},
    )


def explanation_table(**measures: dict[str, float]) -> pd.DataFrame:
    """Measures of four images by method."""
    return pd.DataFrame(
        [
            {
                "image_id": f"i{n}",
                "patient_id": f"p{n}",
                "label": "cgn",
                "probability": 0.9,
                "method": method,
                "overlay": "" if method in {"random", "centre"} else f"{method}{n}.png",
                "mask_share": 0.1,
                **values,
            }
            for n in range(4)
            for method, values in measures.items()
        ]
    )


CONTROLS = {
    "random": {"deletion": 0.5, "energy_inside": 0.10},
    "centre": {"deletion": 0.4, "energy_inside": 0.15},
}


def write_references(folder: Path, *labels: str, side: int = 1600) -> Path:
    """Write a large reference picture of each label."""
    folder.mkdir()
    for number, label in enumerate(labels):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        write_image(
            np.kron(pixels, np.ones((side // 8, side // 8, 1), np.uint8)), folder / f"{label}.png"
        )
    return folder
