"""Read what the version before the redesign (commit de75c84) wrote.

``tests/data/previous/model`` holds a run folder with its calibration, its ONNX export (without the
exporter's debug information), four crops and the predictions of them. The network is a tiny one,
registered here under the name of the small network.
"""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.errors import RunError
from glomerulab.evaluation.run_tables import read_run
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.onnx_engine import OnnxEngine
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.engines.torch_engine import TorchEngine
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.registry import MODELS, ModelEntry
from glomerulab.pipeline.predict import predict
from glomerulab.runtime.sealing import check_seal

PREVIOUS = Path(__file__).parents[1] / "data" / "previous" / "model"


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = partial(ImprovedSeResNet, widths=(4, 8, 8, 8), depths=(1, 1, 1, 1))
    monkeypatch.setitem(MODELS, "improved_seresnet_small", ModelEntry(tiny, 32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PREVIOUS, tmp_path / "model"))


def _lines(path: Path) -> dict[str, dict[str, object]]:
    records = [json.loads(line) for line in path.read_text().splitlines() if line]
    return {record["image_id"]: record for record in records}


def test_a_run_folder_opens_with_its_seal_and_calibration(folder: Path) -> None:
    run = folder / "run"
    assert check_seal(run)
    assert read_run(run).is_sealed
    engine, calibration = open_engine(run), read_calibration(run)
    assert isinstance(engine, TorchEngine)
    assert engine.weights_sha256 == calibration.facts.weights_sha256
    assert calibration.ood.whitening.shape == (112, 112)
    assert calibration.facts.test_summary_zh


@pytest.mark.parametrize(
    ("model", "engine", "answers"),
    [("run", TorchEngine, "answers.jsonl"), ("export", OnnxEngine, "answers_onnx.jsonl")],
)
def test_predictions_are_those_of_the_previous_version(
    folder: Path, tmp_path: Path, model: str, engine: type, answers: str
) -> None:
    assert isinstance(open_engine(folder / model), engine)
    predict(folder / "crops" / "manifest.csv", folder / model, tmp_path / "out")
    expected = _lines(folder / "predictions" / answers)
    found = _lines(tmp_path / "out" / "answers.jsonl")
    assert found.keys() == expected.keys()
    for image_id, one in found.items():
        assert one["by"] == expected[image_id]["by"]
        for name in ("logits", "distance", "sharpness"):
            assert one[name] == pytest.approx(expected[image_id][name], rel=1e-4, abs=1e-5)
    before = pd.read_csv(folder / "predictions" / "predictions.csv").drop(columns="image_path")
    after = pd.read_csv(tmp_path / "out" / "predictions.csv").drop(columns="image_path")
    pd.testing.assert_frame_equal(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model", "seal"), [("run", "earlier version"), ("export", "no seal")])
def test_a_weaker_seal_is_told_in_the_terminal_and_in_the_case(
    folder: Path, tmp_path: Path, model: str, seal: str, caplog: pytest.LogCaptureFixture
) -> None:
    predict(folder / "crops" / "manifest.csv", folder / model, tmp_path / "out")
    assert len([one for one in caplog.messages if seal in one]) == 1
    (note,) = [one for one in read_case_folder(tmp_path / "out").facts.notes if seal in one.en]
    assert note.zh != note.en


def test_a_changed_file_of_a_weaker_seal_is_refused(folder: Path) -> None:
    path = folder / "run" / "checkpoint" / "checkpoint.json"
    path.write_text(path.read_text().replace("Crescent", "Normal"))
    with pytest.raises(RunError, match="changed"):
        open_engine(folder / "run")


def test_cached_predictions_without_a_scale_are_computed_again_and_kept_beside(
    folder: Path,
) -> None:
    cache = folder / "predictions" / "answers.jsonl"
    for image_id, one in _lines(cache).items():
        crop = folder / "crops" / f"{image_id.removeprefix('i')}.png"
        os.utime(crop, ns=(one["modified"], one["modified"]))
    before = cache.read_text().split()
    predict(folder / "crops" / "manifest.csv", folder / "run", folder / "predictions")
    assert cache.read_text().split()[: len(before)] == before
