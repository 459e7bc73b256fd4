import numpy as np
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError
from glomerulab.images import read_image
from glomerulab.pipeline.prediction.saliency import refuse_export, write_saliency


def test_each_image_gets_the_map_of_its_likeliest_label(trained, tmp_path) -> None:
    manifest = read_manifest(trained / "manifest.csv")
    few = manifest.with_table(manifest.table.iloc[:3])
    labels = {"i0": "cgn", "i2": "normal"}
    found = write_saliency(trained, few, labels, tmp_path, mark="ab" * 32)
    assert sorted(found) == ["i0", "i2"]
    assert found["i0"] == "saliency/abababababab/i0.cgn.png"
    overlay = read_image(tmp_path / found["i0"])
    original = read_image(few.image_paths()[0])
    assert overlay.shape == original.shape
    assert np.abs(overlay.astype(int) - original).max() > 10


def test_an_unreadable_image_has_no_picture_and_stops_nothing(trained, tmp_path) -> None:
    manifest = read_manifest(trained / "manifest.csv")
    table = manifest.table.iloc[:2].copy()
    table.loc[table["image_id"] == "i0", "image_path"] = "gone.png"
    labels = {"i0": "cgn", "i1": "cgn"}
    found = write_saliency(trained, manifest.with_table(table), labels, tmp_path, mark="ab" * 32)
    assert list(found) == ["i1"]


def test_an_export_names_the_way_out(tmp_path) -> None:
    refuse_export(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="run folder it was exported from"):
        refuse_export(tmp_path)
