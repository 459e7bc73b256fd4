import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import CheckpointError, GlomerulabError
from glomerulab.images import read_image
from glomerulab.inference.model import load_model
from glomerulab.pipeline.predict import predict
from glomerulab.runtime.sealing import write_seal


def test_arrays_and_files_get_the_decisions_of_the_command(trained: Path, tmp_path: Path) -> None:
    source = trained.parent / "manifest.csv"
    cohort = read_manifest(source)
    folder = predict(source, trained, tmp_path / "out").folder
    paths = cohort.image_paths()
    model = load_model(trained)
    from_files = model.predict(paths, stain="PAS", mpp=0.5, batch_size=16)
    from_arrays = model.predict(map(read_image, paths), stain="PAS", mpp=0.5, batch_size=16)
    assert from_files == from_arrays
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    for key in model.card.taxonomy.label_ids:
        assert [one.probabilities[key] for one in from_files] == pytest.approx(
            table[f"probability_{key}"].tolist(), abs=1e-6
        )
        assert [one.states[key] for one in from_files] == table[f"state_{key}"].tolist()
    assert [" ".join(one.reasons) for one in from_files] == table["reasons"].tolist()


def test_an_unknown_stain_is_a_reason_for_review(trained: Path) -> None:
    image = np.full((40, 30, 3), 120, np.uint8)
    (decision,) = load_model(trained).predict([image])
    assert "stain_unknown" in decision.reasons
    assert load_model(str(trained)).predict([]) == []


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stain", "FOO"),
        ("stain", "pas"),
        ("stain", ""),
        ("mpp", 0.0),
        ("mpp", float("nan")),
        ("batch_size", 0),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(trained: Path, argument: str, value) -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    with pytest.raises(ValueError, match=f"{argument} must be .*got {value!r}"):
        load_model(trained).predict([image], **{argument: value})


def test_a_single_image_must_be_in_a_list(trained: Path) -> None:
    model = load_model(trained)
    for image in (np.zeros((8, 8, 3), np.uint8), "image.png"):
        with pytest.raises(ValueError, match="list"):
            model.predict(image)


def test_a_file_that_is_not_an_image_is_an_error(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained)
    with pytest.raises(ValueError, match="uint8"):
        model.predict([np.zeros((8, 8), np.uint8)])
    with pytest.raises(GlomerulabError) as caught:
        model.predict([tmp_path / "missing.png"])
    assert caught.value.where == str(tmp_path / "missing.png")


def test_a_missing_calibration_is_fitted_only_on_request(own_run: Path) -> None:
    shutil.rmtree(own_run / "gates")
    write_seal(own_run)
    with pytest.raises(CheckpointError) as caught:
        load_model(own_run, fit_missing=False)
    assert caught.value.where == str(own_run)
    fitted = load_model(own_run).calibration
    assert load_model(own_run, fit_missing=False).calibration.facts == fitted.facts
