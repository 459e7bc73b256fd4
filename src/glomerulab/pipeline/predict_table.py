"""The output of `predict`: the table of calls, and saliency pictures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cases.case_folder import outline_text
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ConfigError, ImageFileError
from glomerulab.images import write_image
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.decide import Decision, decide
from glomerulab.inference.image_predictions import ImagePrediction
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.predict_inputs import PredictionInputs
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder
from glomerulab.slides.regions.parsing import LABEL_SEPARATOR
from glomerulab.slides.regions.proposals import is_proposal
from glomerulab.taxonomy import Taxonomy

SALIENCY_FOLDER = "saliency"
COPIED_COLUMNS = (
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


def case_table(
    inputs: PredictionInputs,
    images: Manifest,
    predictions: Mapping[str, ImagePrediction],
    *,
    card: ModelCard,
    calibration: ModelCalibration,
    out: Path,
) -> pd.DataFrame:
    """Return the table that `glomerulab.cases.case_folder.read_case_folder` reads."""
    rows = inputs.manifest.table
    rows = rows[rows["image_id"].isin(list(predictions))].reset_index(drop=True)
    found = [predictions[image_id] for image_id in rows["image_id"]]
    keys = card.taxonomy.label_ids
    statuses: dict[str, str] = {}
    if "stain_status" in images.table:
        statuses = dict(zip(images.table["image_id"], images.table["stain_status"], strict=True))
    decisions = decide(
        found,
        stains=[None if pd.isna(stain) else str(stain) for stain in rows["stain"]],
        stain_statuses=[statuses.get(image_id) for image_id in rows["image_id"]],
        calibration=calibration,
        taxonomy=card.taxonomy,
        head=card.head,
    )
    crops = inputs.manifest
    paths = dict(zip(crops.table["image_id"], crops.image_paths(), strict=True))
    columns: dict[str, object] = {name: rows.get(name, pd.NA) for name in COPIED_COLUMNS}
    columns["image_path"] = [
        Path(os.path.relpath(paths[image_id], out.absolute())).as_posix()
        for image_id in rows["image_id"]
    ]
    columns |= {f"label_{key}": rows[key] for key in keys}
    columns |= _decision_columns(decisions, keys)
    columns["distance"] = [round(one.distance, 4) for one in found]
    columns["sharpness"] = [round(one.sharpness, 4) for one in found]
    return pd.DataFrame(columns | _region_columns(rows, inputs))


def likeliest_labels(table: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, str]:
    """Return the label with the highest probability of each image, by image id."""
    keys = np.array(taxonomy.label_ids)
    chances = table[[f"probability_{key}" for key in keys]].to_numpy(dtype=np.float64)
    return dict(zip(table["image_id"].astype(str), keys[chances.argmax(axis=1)], strict=True))


def check_has_gradients(run: Path) -> None:
    """Raise ConfigError if a run is an exported model, which has no gradients for saliency."""
    if (run / "model.onnx").is_file():
        raise ConfigError(
            "an exported model has no gradients, which saliency needs; give as the model the run "
            "folder that it was exported from, or leave out saliency",
            where=str(run),
        )


def write_saliency(
    run: SealedFolder,
    images: Manifest,
    labels: Mapping[str, str],
    out: Path,
    *,
    weights_sha256: str,
    track: Track = silent,
) -> dict[str, str]:
    """Write a picture of each image, by Grad-CAM where the network has maps for it."""
    from glomerulab.explain.explainer import Explainer

    folder = make_folder(out / SALIENCY_FOLDER / weights_sha256[:12])
    explainer = Explainer(run)
    pairs = zip(images.table["image_id"].astype(str), images.image_paths(), strict=True)
    wanted = [(name, path) for name, path in pairs if name in labels]
    found = {}
    for name, path in track(wanted, "Drawing saliency", len(wanted)):
        picture = folder / f"{safe_name(name)}.{labels[name]}.png"
        try:
            write_image(explainer.picture(path, labels[name]), picture)
        except ImageFileError:  # deleted since it was classified: the call has no picture
            continue
        found[name] = picture.relative_to(out).as_posix()
    return found


def _decision_columns(decisions: Sequence[Decision], keys: Sequence[str]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for key in keys:
        columns[f"probability_{key}"] = [one.probabilities[key] for one in decisions]
    for key in keys:
        columns[f"called_{key}"] = [int(key in one.called) for one in decisions]
        columns[f"state_{key}"] = [one.states[key] for one in decisions]
    columns["reasons"] = [" ".join(one.reasons) for one in decisions]
    return columns


def _region_columns(rows: pd.DataFrame, inputs: PredictionInputs) -> dict[str, object]:
    """Return the outlines and their origin; nothing for crops without slides."""
    if not inputs.slides:
        return {}
    names = rows.get("region_id", ())  # the column is missing if no crop was cut
    places = list(zip(rows["slide_id"], names, strict=True))
    regions = [inputs.regions.get(place) for place in places]
    columns: dict[str, object] = {
        "outline": [outline_text(() if one is None else one.polygon) for one in regions]
    }
    if any(is_proposal(region) for region in inputs.regions.values()):
        columns["proposed"] = [int(one is not None and is_proposal(one)) for one in regions]
    drawn = [None if one is None or is_proposal(one) else one for one in regions]
    sources: dict[str, list[str | None]] = {
        "source_id": [None if one is None else one.source_id for one in drawn],
        "source_class": [
            None if one is None else LABEL_SEPARATOR.join(one.source_classes or ()) for one in drawn
        ],
    }
    columns |= {
        name: [cell or pd.NA for cell in cells] for name, cells in sources.items() if any(cells)
    }
    if inputs.scores:
        columns["detector_score"] = [inputs.scores.get(place, pd.NA) for place in places]
    return columns
