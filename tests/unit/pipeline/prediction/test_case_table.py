import pandas as pd

from glomerulab.cohort.manifest import read_manifest
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.image_predictions import predict_images
from glomerulab.pipeline.prediction.case_table import case_table, likeliest_labels
from glomerulab.pipeline.prediction.slide_facts import SlidesRead
from tests.support.cases import PAPER


def test_images_without_an_answer_are_left_out_and_the_order_is_the_cuts(own_run, tmp_path) -> None:
    engine, calibration = open_engine(own_run), read_calibration(own_run)
    whole = read_manifest(own_run / "manifest.csv")
    few = whole.with_table(whole.table.iloc[:6])
    answers, _ = predict_images(few, engine, calibration, tmp_path)
    del answers["i3"]
    table = case_table(
        few,
        few,
        answers,
        card=engine.card,
        calibration=calibration,
        out=tmp_path,
        read=SlidesRead((), {}),
        scores={},
    )
    assert table["image_id"].tolist() == ["i0", "i1", "i2", "i4", "i5"]
    assert "outline" not in table
    assert "proposed" not in table
    assert (tmp_path / table["image_path"][0]).resolve() == few.image_paths()[0].resolve()


def test_the_likeliest_label_is_the_one_with_the_highest_probability() -> None:
    table = pd.DataFrame({"image_id": ["a", "b"]})
    for number, key in enumerate(PAPER.label_ids):
        table[f"probability_{key}"] = [0.1 * number, 0.4 - 0.1 * number]
    assert likeliest_labels(table, PAPER) == {"a": PAPER.label_ids[-1], "b": PAPER.label_ids[0]}
