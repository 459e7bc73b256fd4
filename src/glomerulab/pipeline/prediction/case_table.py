"""The table of a predictions folder: what was cut, what was said of it, and what is called."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cases.case_folder import outline_text
from glomerulab.cohort.manifest import Manifest
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.decide import decide
from glomerulab.inference.image_predictions import ImagePrediction
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.prediction.slide_facts import SlidesRead
from glomerulab.taxonomy import Taxonomy

__all__ = ["case_table", "likeliest_labels"]


def case_table(
    cut: Manifest,
    shown: Manifest,
    answers: Mapping[str, ImagePrediction],
    *,
    card: ModelCard,
    calibration: ModelCalibration,
    out: Path,
    read: SlidesRead,
    scores: Mapping[tuple[str, str], float],
) -> pd.DataFrame:
    """Join rows, answers and calls.

    Parameters
    ----------
    cut : Manifest
        Crops as they were cut.
    shown : Manifest
        As the network is shown them, with what became of their stain.
    answers : mapping of str to Answer
        By image id; images without one are left out.
    card : ModelCard
    gates : Gates
    out : Path
        Folder that paths are relative to.
    read : SlidesRead
        Outlines of the regions, and which of them were proposed; none for crops without slides.
    scores : mapping of tuple of str to float
        Of proposals, by slide id and region id.

    Returns
    -------
    DataFrame
        What `glomerulab.cases.case_folder.read_case_folder` reads.
    """
    rows = cut.table
    rows = rows[rows["image_id"].isin(list(answers))].reset_index(drop=True)
    statuses: dict[str, str] = {}
    if "stain_status" in shown.table:
        statuses = dict(zip(shown.table["image_id"], shown.table["stain_status"], strict=True))
    found = [answers[key] for key in rows["image_id"]]
    decisions = decide(
        np.array([answer.logits for answer in found]).reshape(-1, len(card.taxonomy.label_ids)),
        [answer.distance for answer in found],
        [answer.sharpness for answer in found],
        stains=[None if pd.isna(stain) else str(stain) for stain in rows["stain"]],
        stain_statuses=[statuses.get(key) for key in rows["image_id"]],
        calibration=calibration,
        taxonomy=card.taxonomy,
        head=card.head,
    )
    paths = dict(zip(cut.table["image_id"], cut.image_paths(), strict=True))
    keys = card.taxonomy.label_ids
    columns: dict[str, object] = {
        name: rows.get(name, pd.NA)
        for name in (
            "image_id",
            "patient_id",
            "slide_id",
            "region_id",
            "stain",
            "mpp",
            "x",
            "y",
            "width",
            "height",
        )
    }
    columns["image_path"] = [_relative(paths[key], out) for key in rows["image_id"]]
    for key in keys:
        columns[f"label_{key}"] = rows[key]
    for key in keys:
        columns[f"probability_{key}"] = [one.probabilities[key] for one in decisions]
    for key in keys:
        columns[f"called_{key}"] = [int(key in one.called) for one in decisions]
        columns[f"state_{key}"] = [one.states[key] for one in decisions]
    columns["reasons"] = [" ".join(one.reasons) for one in decisions]
    columns["distance"] = [round(answer.distance, 4) for answer in found]
    columns["sharpness"] = [round(answer.sharpness, 4) for answer in found]
    return pd.DataFrame(columns | _places(rows, read, scores))


def likeliest_labels(table: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, str]:
    """Return the likeliest label of each image, by image id."""
    keys = np.array(taxonomy.label_ids)
    chances = table[[f"probability_{key}" for key in keys]].to_numpy(dtype=np.float64)
    return dict(zip(table["image_id"].astype(str), keys[chances.argmax(axis=1)], strict=True))


def _places(
    rows: pd.DataFrame, read: SlidesRead, scores: Mapping[tuple[str, str], float]
) -> dict[str, object]:
    """Return what is known of the regions that crops of slides were cut by."""
    if not read.facts:
        return {}
    regions = rows.get("region_id", ())  # no column where no crop was cut
    places = list(zip(rows["slide_id"], regions, strict=True))
    found: dict[str, object] = {
        "outline": [outline_text(read.outlines.get(place, ())) for place in places]
    }
    if read.proposed:
        found["proposed"] = [int(place in read.proposed) for place in places]
    if scores:
        found["detector_score"] = [scores.get(place, pd.NA) for place in places]
    return found


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start.absolute())).as_posix()
