"""A slide of 100,000 x 100,000 pixels is cut in memory that does not grow with it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.images import read_image

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "huge_slide.py"


@pytest.mark.slow
def test_a_huge_slide_is_cut_under_one_gibibyte(tmp_path):
    spec = importlib.util.spec_from_file_location("huge_slide", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    huge_slide = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(huge_slide)
    peaks = huge_slide.measure(tmp_path, n_regions=12)
    assert max(peaks.values()) < 1024, peaks
    manifest = read_manifest(tmp_path / "native" / "manifest.csv")
    assert len(manifest.table) == 12
    for region_id, path in zip(manifest.table["region_id"], manifest.image_paths(), strict=True):
        crop = read_image(path)
        if region_id == "edge":
            assert (np.abs(crop.astype(int) - huge_slide.GLASS) <= 2).all()
        else:
            assert crop.std() > 10
