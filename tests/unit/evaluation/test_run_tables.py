import pandas as pd
import pytest

from glomerulab.errors import ConfigError, GlomerulabError, PredictionsError, TrainingError
from glomerulab.evaluation.run_tables import read_run
from glomerulab.taxonomy import Label, Taxonomy
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", RunRecipe(n_patients=6, n_images_per_patient=5))


def _edit(path, change):
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


def test_all_tables_of_a_run_folder_are_read(run):
    tables = read_run(run)
    assert tables.head == "softmax"
    assert tables.taxonomy.name == "paper"
    assert tables.is_synthetic
    assert tables.config["model"]["name"] == "improved_seresnet50"
    assert "improved_seresnet50" in tables.config_text
    assert len(tables.history) == 40
    first = tables.predictions["image_id"].iloc[0]
    assert tables.image_paths[first].is_file()


def test_another_task_brings_its_taxonomy(tmp_path):
    taxonomy = Taxonomy("two", (Label(id="benign", name="Benign"), Label(id="bad", name="Bad")))
    run = write_run(tmp_path / "run", RunRecipe(n_patients=6, taxonomy=taxonomy))
    assert read_run(run).taxonomy.label_ids == ("benign", "bad")


@pytest.mark.parametrize("name", ["predictions.csv", "manifest.csv", "config.toml"])
def test_a_missing_file_is_an_error_that_names_it(run, name):
    (run / name).unlink()
    with pytest.raises(GlomerulabError, match=name):
        read_run(run)


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(PredictionsError, match="nowhere"):
        read_run(tmp_path / "nowhere")


def test_history_and_environment_may_be_absent(run):
    (run / "history.csv").unlink()
    (run / "environment.json").unlink()
    tables = read_run(run)
    assert tables.history.empty
    assert tables.environment == {}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("history.csv", "a,b\n1,2\n", TrainingError),
        ("environment.json", "[1]", TrainingError),
        ("environment.json", "{", TrainingError),
        ("config.toml", "= 1", ConfigError),
        ("config.toml", '[model]\nhead = "argmax"\n', ConfigError),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(run, name, content, kind):
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(kind, match=name):
        read_run(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(probability_cgn=0.7), "line 2.*do not sum to 1"),
        (lambda t: t.assign(probability_cgn=None), "line 2.*from 0 to 1"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "two rows"),
        (lambda t: t.assign(label_other=0), "outside the taxonomy.*label_other"),
        (lambda t: t.drop(columns="label_fsg"), "lacks the columns label_fsg"),
        (lambda t: t.assign(image_id="x" + t["image_id"]), "not in manifest.csv"),
        (lambda t: t.assign(split="test"), "split differs"),
        (lambda t: t.assign(label_fsg=1 - t["label_fsg"]), "line 2.*label_fsg differs"),
        (lambda t: t.assign(patient_id="p"), "line 2.*patient_id differs"),
    ],
)
def test_bad_predictions_are_an_error_that_names_the_row(run, change, message):
    _edit(run / "predictions.csv", change)
    with pytest.raises(PredictionsError, match=message):
        read_run(run)
