import shutil

import numpy as np
import pytest

from glomerulab.apps.serve.metrics import Metrics
from glomerulab.apps.serve.service import load_served_model
from glomerulab.errors import CheckpointError, RunError, TaxonomyError
from glomerulab.inference.onnx_export import export_onnx
from glomerulab.runtime.sealing import write_seal
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy
from tests.support.served_models import served


def test_a_run_is_loaded_with_its_calibration_and_overlays(trained):
    model = load_served_model(trained, Metrics(), taxonomy=load_taxonomy("paper"))
    model.predictor.close()
    assert model.engine_name == "torch"
    assert model.overlays is not None
    assert model.facts.run == "run"


def test_a_model_of_another_taxonomy_is_refused_by_name(trained):
    other = Taxonomy("other", (Label(id="a", name="A", name_zh="甲"),))
    with pytest.raises(TaxonomyError, match="normal, mspgn, fsg, cgn"):
        load_served_model(trained, Metrics(), taxonomy=other)


@pytest.mark.parametrize("name", ["checkpoint", "gates"])
def test_a_truncated_file_of_the_model_is_refused_at_the_start(own_run, name):
    (path,) = (own_run / name).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((CheckpointError, RunError)) as caught:
        load_served_model(own_run, Metrics())
    assert name in str(caught.value)


def test_a_run_without_calibration_names_the_command_that_fits_it(own_run):
    shutil.rmtree(own_run / "gates")
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="glomerulab gates"):
        load_served_model(own_run, Metrics())


def test_an_export_predicts_the_same_without_overlays(trained, tmp_path):
    export_onnx(trained, tmp_path / "onnx")
    image = (trained.parent / "60.png").read_bytes()
    answers = []
    for run in (trained, tmp_path / "onnx"):
        with served(run, tmp_path) as one:
            response = one.client().post("/v1/crops?stain=PAS&mpp=0.5&saliency=true", content=image)
            answers.append(response.json())
            assert one.client().get("/").status_code == 200
    torch, onnx = answers
    assert torch["overlay"] is not None
    assert onnx["overlay"] is None
    assert "export" in onnx["notes"][0]
    assert onnx["called"] == torch["called"]
    chances = [[label["probability"] for label in one["labels"]] for one in answers]
    assert np.abs(np.subtract(*chances)).max() < 1e-4


def test_every_prediction_of_an_int8_model_names_its_precision(own_run, tmp_path):
    export_onnx(own_run, tmp_path / "int8", precision="int8")
    image = (own_run.parent / "60.png").read_bytes()
    with served(tmp_path / "int8", tmp_path) as one:
        notes = one.client().post("/v1/crops?mpp=0.5", content=image).json()["notes"]
        card = one.client().get("/v1/model").json()
    assert "8-bit integers" in notes[0]
    assert "held-out images" in notes[0]
    assert card["notes"] == notes
