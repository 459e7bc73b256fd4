import json
import uuid
from dataclasses import replace

import numpy as np

from glomerulab.cases.case import build_cases
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.geojson import render_case_geojson, write_case_geojson
from glomerulab.slides.regions.files import read_regions


def test_our_reader_reads_back_names_classes_and_places(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["cgn", "fsg"], by="A", reason="x")
    case = build_cases(folder)[0]
    slide = case.slides[0]
    write_case_geojson(case, slide, tmp_path / "s1.geojson")
    found = read_regions(tmp_path / "s1.geojson", bounds_offset=slide.bounds_offset)
    on_slide = [call for call in case.calls if call.slide_id == "s1"]
    assert [one.region_id for one in found] == [call.region_id for call in on_slide]
    assert [one.labels for one in found] == [("cgn",), ("fsg", "cgn"), ("fsg",), ("normal",)]
    for one, call in zip(found, on_slide, strict=True):
        assert np.allclose(one.polygon, call.outline)


def test_the_id_and_class_of_the_sender_are_given_back(folder) -> None:
    own = str(uuid.uuid4())
    first, *others = folder.calls
    drawn = replace(first, source_id=own, source_class="Glomerulus: Scar")
    numbered = replace(others[0], source_id="7")
    case = build_cases(replace(folder, calls=(drawn, numbered, *others[1:])))[0]
    slide = next(one for one in case.slides if one.slide_id == first.slide_id)
    features = json.loads(render_case_geojson(case, slide))["features"]
    (feature,) = (one for one in features if one["id"] == own)
    assert feature["properties"]["metadata"]["class in the region file"] == "Glomerulus: Scar"
    assert "7" not in {one["id"] for one in features}


def test_each_feature_is_what_qupath_reads(folder) -> None:
    """QuPath's QuPathTypeAdapters (0.4 on): uuid, objectType, classification, measurements."""
    case = build_cases(folder)[0]
    features = json.loads(render_case_geojson(case, case.slides[0]))["features"]
    for feature in features:
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["isLocked"] is True
        assert len(properties["classification"]["color"]) == 3
        assert all(isinstance(value, float) for value in properties["measurements"].values())
        assert all(isinstance(value, str) for value in properties["metadata"].values())
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]


def test_ids_stay_the_same_in_each_export(folder) -> None:
    case = build_cases(folder)[0]
    assert render_case_geojson(case, case.slides[0]) == render_case_geojson(case, case.slides[0])


def test_a_rejected_image_has_a_class_of_its_own(folder) -> None:
    add_correction(folder, "d", labels=["not_a_glomerulus"], by="A", reason="x")
    case = build_cases(folder)[0]
    features = json.loads(render_case_geojson(case, case.slides[1]))["features"]
    names = [one["properties"]["classification"]["name"] for one in features]
    assert names == ["normal", "not_a_glomerulus"]


def test_the_warnings_are_beside_the_features(doubtful) -> None:
    case = build_cases(doubtful)[0]
    found = json.loads(render_case_geojson(case, case.slides[0]))
    assert "Research use only" in found["note"]
    assert any("proposed by a detector" in text for text in found["warnings"])
    assert any("s1 g 9" in text for text in found["warnings"])


def test_a_glomerulus_on_several_slides_names_them_in_its_metadata(folder) -> None:
    case = build_cases(folder)[0]
    features = json.loads(render_case_geojson(case, case.slides[1]))["features"]
    metadata = {one["properties"]["name"]: one["properties"]["metadata"] for one in features}
    shared = {"glomerulus": "1", "also on": "s1", "glomerulus counted as": "cgn"}
    assert shared.items() <= metadata["g1"].items()
    assert not shared.keys() & metadata["d"].keys()
