import json

import pytest
import torch

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.card import Origin
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.layers import head_layers
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.published import find_published, is_published, origin_lines
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import load_matching
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train
from tests.support.published_models import FOLDERS, write_uni, write_virchow


def _built(folder, input_size):
    published = find_published(str(folder))
    model = create_model(published.model, 2, options=published.options, input_size=input_size)
    tensors = read_weights(published.weights, model).tensors
    loaded = load_matching(model, tensors, input_size=input_size, leave=head_layers(model))
    return model.eval(), published, loaded


@pytest.mark.parametrize("name", FOLDERS)
def test_a_published_folder_gives_the_features_of_its_network(tmp_path, name):
    theirs = FOLDERS[name](tmp_path)
    ours, published, loaded = _built(tmp_path, 224)
    assert (loaded.missing, loaded.misshapen, loaded.unused) == ((), (), ())
    assert published.input_size == 224
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vectors = [
            model.forward_head(model.forward_features(images), pre_logits=True)
            for model in (ours, theirs)
        ]
    if vectors[1].ndim == 3:  # the authors leave the pooling to the user
        vectors[1] = vectors[1][:, 0]
    torch.testing.assert_close(*vectors, atol=1e-4, rtol=1e-4)


def test_another_image_size_resamples_the_positions(tmp_path):
    write_uni(tmp_path)
    _, _, loaded = _built(tmp_path, 64)
    assert "pos_embed" in loaded.loaded
    assert (loaded.missing, loaded.misshapen) == ((), ())


def test_scale_licence_and_citation_come_from_the_files(tmp_path):
    for name, write in FOLDERS.items():
        write(tmp_path / name)
    found = {name: find_published(str(tmp_path / name)) for name in FOLDERS}
    assert found["H-optimus-0"].mean == (0.707223, 0.578729, 0.703617)
    licences = {name: one.origin.licence for name, one in found.items()}
    assert licences == {
        "UNI": "CC BY-NC-ND 4.0",
        "Virchow2": "cc-by-nc-nd-4.0",
        "H-optimus-0": "apache-2.0",
        "Phikon-v2": "owkin-non-commercial",
    }
    restricted = {
        name for name, one in found.items() if "WARNING" in "\n".join(origin_lines(one.origin))
    }
    assert restricted == {"UNI", "Virchow2", "Phikon-v2"}
    assert "author2024model" in str(found["Virchow2"].origin.citation)
    assert "not stated" in origin_lines(Origin(source="x"))[0]


def _published(config: TrainConfig, folder, **model) -> TrainConfig:
    changes = {"name": str(folder), "input_size": 56, "options": {}} | model
    return config.model_copy(update={"model": config.model.model_copy(update=changes), "epochs": 1})


def test_a_training_starts_from_a_folder_and_its_run_needs_the_folder_no_more(config, tmp_path):
    folder = tmp_path / "Virchow2"
    theirs = write_virchow(folder)
    lines: list[str] = []
    frozen = config.start.model_copy(update={"frozen_share": 1.0})
    begun = _published(config, folder).model_copy(update={"start": frozen})
    run = train(begun, echo=lines.append)
    assert f"licence of {folder}: cc-by-nc-nd-4.0" in lines
    assert any(line.startswith("WARNING: this licence restricts") for line in lines)
    recorded = json.loads((run / "environment.json").read_text())["starting_weights"]
    assert recorded["licence"] == "cc-by-nc-nd-4.0"
    folder.rename(tmp_path / "gone")
    model, card = load_checkpoint(run)
    assert card.origin is not None
    assert card.origin.licence == "cc-by-nc-nd-4.0"
    key = "blocks.1.mlp.fc1.weight"
    assert torch.equal(model.state_dict()[key], theirs.state_dict()[key])
    start = config.start.model_copy(update={"weights": str(run)})
    second = _published(config, card.model, options=card.options).model_copy(
        update={"start": start, "out": config.out.with_name("second")}
    )
    assert load_checkpoint(train(second))[1].origin == card.origin


def test_what_the_files_lack_is_named(tmp_path):
    assert not is_published(str(tmp_path))
    with pytest.raises(CheckpointError, match="no folder"):
        find_published("local-dir:/nowhere/at/all")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        find_published(f"local-dir:{tmp_path}")
    write_uni(tmp_path)
    assert is_published(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors and pytorch_model\.bin"):
        find_published(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architecture": "vit_of_tomorrow"}, "vit_of_tomorrow"),
        ({"architecture": None, "model_type": "bert"}, "bert"),
        ({"model_args": {"in_chans": 4}}, "4 channels"),
        ({"model_args": {"head": {"a": 1}}}, "head"),
    ],
)
def test_a_network_that_cannot_be_built_is_named(tmp_path, changes, named):
    write_uni(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value}))
    with pytest.raises(CheckpointError, match=named):
        find_published(str(tmp_path))


def test_an_argument_that_this_timm_lacks_is_named(config, tmp_path):
    write_uni(tmp_path / "UNI")
    path = tmp_path / "UNI" / "config.json"
    content = json.loads(path.read_text())
    content["model_args"]["from_tomorrow"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="from_tomorrow"):
        train(_published(config, tmp_path / "UNI"))


def test_weights_of_another_network_are_refused(config, tmp_path):
    write_uni(tmp_path / "UNI")
    torch.save({"conv9.weight": torch.zeros(2)}, tmp_path / "UNI" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        train(_published(config, tmp_path / "UNI", input_size=64))


@pytest.mark.parametrize("is_told", [True, False])
def test_a_name_on_the_hub_offline_names_the_files_and_the_cache(tmp_path, monkeypatch, is_told):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_told)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # closed
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError) as caught:
        find_published("hf-hub:MahmoodLab/UNI")
    for part in ("hf-hub:MahmoodLab/UNI", "config.json", str(tmp_path / "cache"), "local folder"):
        assert part in str(caught.value)
