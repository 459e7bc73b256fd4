"""The calls of one slide for QuPath 0.4 and later: classes, colours, measurements, metadata."""

import json
import uuid
from pathlib import Path
from typing import Any

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case import Case
from glomerulab.cases.case_folder import SlideFacts
from glomerulab.cases.corrections import NOT_A_GLOMERULUS, call_text, labels_text
from glomerulab.geometry import Box
from glomerulab.reports.case.text import RESEARCH_USE
from glomerulab.reports.case.view import colour_of
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.regions.geojson import is_uuid

NAMESPACE = uuid.UUID("6f1b8e0a-7d0c-5b52-9a65-3f7f6a1d2c11")


def render_case_geojson(case: Case, slide: SlideFacts) -> str:
    """Return the calls of a slide as a FeatureCollection in QuPath's coordinates.

    Each image is a locked annotation named by its region and classified by its labels (several
    are joined as QuPath joins derived classes), with the probability of each label as a
    measurement and the rest as metadata. A glomerulus on several slides names them and what it is
    counted as. The warnings of the case are beside the features, where QuPath ignores them.
    """
    features = [
        _feature(case, call, call.box, slide)
        for call in case.calls
        if call.slide_id == slide.slide_id and call.box is not None
    ]
    collection = {
        "type": "FeatureCollection",
        "features": features,
        "note": RESEARCH_USE,
        "warnings": [one.sentence for one in case_warnings(case, "en", max_listed=None)],
    }
    return json.dumps(collection, ensure_ascii=False)


def write_case_geojson(case: Case, slide: SlideFacts, path: Path) -> None:
    """Write the calls of a slide as GeoJSON."""
    text = render_case_geojson(case, slide)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _feature(case: Case, call: GlomerulusCall, box: Box, slide: SlideFacts) -> dict[str, Any]:
    left, upper = slide.bounds_offset
    ring = [[x - left, y - upper] for x, y in call.outline or box.corners()]
    keys = case.taxonomy.label_ids
    labels = case.labels_of(call)
    none = call_text(None) if case.is_not_assessed(call) else NOT_A_GLOMERULUS
    classes = [none] if labels is None else [key for key in keys if key in labels]
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": call.region_id or call.image_id,
        "isLocked": True,
        "measurements": {f"probability {key}": round(call.probabilities[key], 6) for key in keys},
        "metadata": {key: value for key, value in _metadata(case, call).items() if value},
    }
    if classes:
        properties["classification"] = {
            "name": ": ".join(classes),
            "color": list(bytes.fromhex(colour_of(labels, keys).removeprefix("#"))),
            "names": classes,
        }
    return {
        "type": "Feature",
        # The sender's, or the same in each export, so that QuPath recognises the object.
        "id": call.source_id
        if is_uuid(call.source_id)
        else str(uuid.uuid5(NAMESPACE, f"{slide.slide_id}/{call.image_id}")),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": properties,
    }


def _metadata(case: Case, call: GlomerulusCall) -> dict[str, str]:
    metadata = {
        "called by model": call_text(call.called),
        "refer": " ".join(case.review_reasons_of(call)),
        "note": "research use only",
    }
    if others := case.other_slides_of(call):
        metadata |= {
            "glomerulus": str(case.glomerulus_numbers[call.image_id]),
            "also on": ", ".join(others),
            "glomerulus counted as": labels_text(case.glomerulus_of(call).labels),
        }
    if call.source_class is not None:
        metadata["class in the region file"] = call.source_class
    if call.is_proposed:
        metadata["proposed"] = "by a detector, drawn by no person"
    entry = case.latest_corrections.get(call.image_id)
    if entry is not None:
        key = "confirmed" if call.image_id in case.confirmed_images else "changed"
        metadata[key] = f"{entry.by}, {entry.time}: {entry.reason}"
    return metadata
