import json
from pathlib import Path

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.slides.regions.proposals import (
    PROPOSAL_LABEL,
    Proposal,
    is_proposal,
    read_scores,
    write_proposals,
)

MADE_BY = {"run": "detector", "weights_sha256": "ab" * 32}


def proposals() -> list[Proposal]:
    regions = [
        Region.from_box(f"s1 proposal {n}", Box(100 * n, 50, 40, 30), labels=(PROPOSAL_LABEL,))
        for n in (1, 2)
    ]
    return [Proposal(regions[0], 0.98765), Proposal(regions[1], 0.5)]


def test_proposals_are_read_as_marked_regions(tmp_path: Path) -> None:
    path = tmp_path / "s1.geojson"
    write_proposals(proposals(), path, bounds_offset=(7.0, 3.0), made_by=MADE_BY)
    read = read_regions(path, bounds_offset=(7.0, 3.0))
    assert read == [one.region for one in proposals()]
    assert all(is_proposal(region) for region in read)


def test_every_region_format_keeps_the_mark(tmp_path: Path) -> None:
    for name in ("a.geojson", "a.xml", "a.csv"):
        write_regions([one.region for one in proposals()], tmp_path / name)
        assert all(is_proposal(region) for region in read_regions(tmp_path / name))


def test_qupath_finds_the_score_among_the_measurements(tmp_path: Path) -> None:
    path = tmp_path / "s1.geojson"
    write_proposals(proposals(), path, bounds_offset=(0.0, 0.0), made_by=MADE_BY)
    content = json.loads(path.read_text(encoding="utf-8"))
    first = content["features"][0]["properties"]
    assert first["measurements"] == {"detector score": 0.9877}
    assert first["classification"]["name"] == "Glomerulus proposal"
    assert "isLocked" not in first  # a person is to correct it
    assert "Research use only" in content["note"]


def test_scores_are_returned_only_for_their_detector(tmp_path: Path) -> None:
    path = tmp_path / "s1.geojson"
    assert read_scores(path, made_by=MADE_BY) is None
    notes = [{"en": "A tile failed.", "zh": "一个图块失败。"}]
    write_proposals(proposals(), path, bounds_offset=(0.0, 0.0), made_by=MADE_BY, notes=notes)
    scores = {"s1 proposal 1": 0.9877, "s1 proposal 2": 0.5}
    assert read_scores(path, made_by=MADE_BY) == (scores, notes)
    assert read_scores(path, made_by={**MADE_BY, "run": "another"}) is None
    write_proposals([], path, bounds_offset=(0.0, 0.0), made_by=MADE_BY)
    assert read_scores(path, made_by=MADE_BY) == ({}, [])


def test_a_corrected_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s1.geojson"
    write_regions([one.region for one in proposals()], path)  # as a correction comes out of QuPath
    with pytest.raises(RegionError, match="--regions"):
        read_scores(path, made_by=MADE_BY)
