"""The calls on one slide as QuPath (0.4 and later) imports them: classes, colours, measurements."""

import json
import uuid
from pathlib import Path
from typing import Any

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case import Case
from glomerulab.cases.case_folder import SlideFacts
from glomerulab.cases.corrections import NOT_A_GLOMERULUS, labels_text
from glomerulab.reports.case.view import colour_of
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.reports.case.words import words
from glomerulab.runtime.files import atomic_write

__all__ = ["render_case_geojson", "write_case_geojson"]

NAMESPACE = uuid.UUID("6f1b8e0a-7d0c-5b52-9a65-3f7f6a1d2c11")


def render_case_geojson(case: Case, slide: SlideFacts) -> str:
    """Return the calls on a slide as a FeatureCollection.

    Parameters
    ----------
    case : ReportedCase
    slide : SlideFacts
        QuPath counts from the slide's bounds: their corner is taken off.

    Returns
    -------
    str
        JSON. Each glomerulus is a locked annotation, named by its region, classified by what
        this image of it shows (names of several labels are joined as QuPath joins derived classes),
        with the probability of each label as a measurement; everything else is metadata. Of a
        glomerulus on several slides that says which and what it counts as. The warnings of the
        case stand beside the features, where QuPath passes over them and other programs find them.
    """
    features = [
        _feature(case, call, slide) for call in case.calls if call.slide_id == slide.slide_id
    ]
    found = {
        "type": "FeatureCollection",
        "features": [one for one in features if one is not None],
        "note": words("en")["research_only"],
        "warnings": [one.sentence for one in case_warnings(case, "en", max_listed=None)],
    }
    return json.dumps(found, ensure_ascii=False)


def write_case_geojson(case: Case, slide: SlideFacts, path: Path) -> None:
    """Write the calls on a slide, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    slide : SlideFacts
    path : Path
        Replaced if it exists.
    """
    text = render_case_geojson(case, slide)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _feature(case: Case, call: GlomerulusCall, slide: SlideFacts) -> dict[str, Any] | None:
    if call.box is None:
        return None
    left, upper = slide.bounds_offset
    ring = [[x - left, y - upper] for x, y in call.outline or call.box.corners()]
    keys = case.taxonomy.label_ids
    reading, entry = case.reading_of(call), case.latest_corrections.get(call.image_id)
    names = [NOT_A_GLOMERULUS] if reading is None else [k for k in keys if k in reading]
    colour = colour_of(reading, keys).removeprefix("#")
    metadata = {
        "called by model": "+".join(sorted(call.called)),
        "refer": " ".join(case.review_reasons_of(call)),
        "note": "research use only",
    }
    if others := case.other_slides_of(call):
        metadata |= {
            "glomerulus": str(case.glomerulus_numbers[call.image_id]),
            "also on": ", ".join(others),
            "glomerulus counted as": labels_text(case.glomerulus_of(call).called),
        }
    if call.is_proposed:
        metadata["proposed"] = "by a detector, drawn by no person"
    if entry is not None:
        key = "confirmed" if call.image_id in case.confirmed else "changed"
        metadata[key] = f"{entry.by}, {entry.time}: {entry.reason}"
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": call.region_id or call.image_id,
        "isLocked": True,
        "measurements": {f"probability {k}": round(call.probabilities[k], 6) for k in keys},
        "metadata": {key: value for key, value in metadata.items() if value},
    }
    if names:
        rgb = [int(colour[place : place + 2], 16) for place in (0, 2, 4)]
        properties["classification"] = {"name": ": ".join(names), "color": rgb, "names": names}
    return {
        "type": "Feature",
        # The same glomerulus has the same id in each export, so that QuPath can tell it again.
        "id": str(uuid.uuid5(NAMESPACE, f"{slide.slide_id}/{call.image_id}")),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": properties,
    }
