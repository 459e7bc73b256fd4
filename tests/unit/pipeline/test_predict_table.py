import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError
from glomerulab.images import read_image
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.image_predictions import predict_images
from glomerulab.pipeline.predict_inputs import PredictionInputs
from glomerulab.pipeline.predict_table import (
    case_table,
    check_has_gradients,
    likeliest_labels,
    write_saliency,
)
from tests.support.cases import PAPER


def test_images_without_an_answer_are_left_out_and_the_order_is_the_cuts(own_run, tmp_path) -> None:
    engine, calibration = open_engine(own_run), read_calibration(own_run)
    manifest = read_manifest(own_run / "manifest.csv")
    few = manifest.with_table(manifest.table.iloc[:6])
    answers, _ = predict_images(few, engine, calibration, tmp_path)
    del answers["i3"]
    table = case_table(
        PredictionInputs(few), few, answers, card=engine.card, calibration=calibration, out=tmp_path
    )
    assert table["image_id"].tolist() == ["i0", "i1", "i2", "i4", "i5"]
    assert "outline" not in table
    assert "proposed" not in table
    assert (tmp_path / table["image_path"][0]).resolve() == few.image_paths()[0].resolve()


def test_the_most_probable_label_has_the_highest_probability() -> None:
    table = pd.DataFrame({"image_id": ["a", "b"]})
    for number, key in enumerate(PAPER.label_ids):
        table[f"probability_{key}"] = [0.1 * number, 0.4 - 0.1 * number]
    assert likeliest_labels(table, PAPER) == {"a": PAPER.label_ids[-1], "b": PAPER.label_ids[0]}


def test_each_image_gets_the_map_of_its_most_probable_label(trained, tmp_path) -> None:
    manifest = read_manifest(trained / "manifest.csv")
    few = manifest.with_table(manifest.table.iloc[:3])
    labels = {"i0": "cgn", "i2": "normal"}
    found = write_saliency(trained, few, labels, tmp_path, weights_sha256="ab" * 32)
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
    few = manifest.with_table(table)
    found = write_saliency(trained, few, labels, tmp_path, weights_sha256="ab" * 32)
    assert list(found) == ["i1"]


def test_an_export_names_the_way_out(tmp_path) -> None:
    check_has_gradients(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="run folder"):
        check_has_gradients(tmp_path)
