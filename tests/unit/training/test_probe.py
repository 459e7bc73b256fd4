"""Probes on a frozen, randomly initialised small network: real runs of seconds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.errors import ImageFileError, TrainingError
from glomerulab.images import read_image
from glomerulab.inference.model import load_model
from glomerulab.inference.onnx_export import export_onnx
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.networks.probe import FeatureExtractor, Probe
from glomerulab.models.registry import create_model
from glomerulab.pipeline.embed import write_features
from glomerulab.predictions import read_predictions
from glomerulab.runtime.cluster import open_workers
from glomerulab.training.config import TrainConfig
from glomerulab.training.probe import n_pretrained_stages
from glomerulab.training.run import train


@pytest.fixture
def probe(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"kind": "probe"})


def test_a_probe_is_a_run_like_any_other(probe: TrainConfig) -> None:
    run = train(probe)
    table = read_predictions(run / "predictions.csv", read_manifest(probe.manifest).taxonomy)
    held_out = table[table["split"] == "test"]
    called = held_out["probability_pink"] > 0.5
    assert (called == (held_out["label_pink"] == 1)).all()
    network, card = load_checkpoint(run)
    assert isinstance(network, Probe)
    assert (card.model, card.options["backbone"]) == ("probe", "improved_seresnet_small")
    model = load_model(run)  # fits its calibration
    images = [read_image(path) for path in read_manifest(run / "manifest.csv").image_paths()[:3]]
    assert len(model.predict(images, stain="HE", mpp=0.5)) == 3
    export_onnx(run, run.with_name("exported"))
    assert np.allclose(
        load_model(run.with_name("exported"))
        .engine.predict(np.stack([i[:32, :32] for i in images]))
        .logits,
        model.engine.predict(np.stack([i[:32, :32] for i in images])).logits,
        atol=1e-3,
    )


def test_the_saved_probabilities_are_those_of_the_saved_network(probe: TrainConfig) -> None:
    run = train(probe)
    network, card = load_checkpoint(run)
    manifest = read_manifest(run / "manifest.csv")
    from glomerulab.training.dataset import CropDataset

    data = CropDataset(manifest, input_size=card.input_size, mean=card.mean, std=card.std)
    with torch.inference_mode():
        logits = network(torch.stack([data[row][0] for row in range(8)]))
    table = read_predictions(run / "predictions.csv", manifest.taxonomy).set_index("image_id")
    expected = table.loc[manifest.table["image_id"][:8], "probability_pink"]
    assert np.allclose(logits.softmax(dim=1)[:, 0].numpy(), expected, atol=1e-5)


def test_kept_features_give_the_same_run_without_computing_them_again(
    probe: TrainConfig, tmp_path: Path
) -> None:
    first = train(probe, features=tmp_path / "features")
    (kept,) = (tmp_path / "features").rglob("part-*.parquet")
    written = kept.stat().st_mtime_ns
    again = train(
        probe.model_copy(update={"out": tmp_path / "again"}), features=tmp_path / "features"
    )
    assert (again / "predictions.csv").read_bytes() == (first / "predictions.csv").read_bytes()
    assert kept.stat().st_mtime_ns == written
    assert len(list((tmp_path / "features").rglob("part-*.parquet"))) == 1


def test_views_make_the_features_independent_of_the_orientation() -> None:
    network = create_model("improved_seresnet_small", 1).eval()
    extractor = FeatureExtractor(network, n_views=8).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        same = [extractor(one) for one in (image, torch.rot90(image, 1, (2, 3)), image.flip(3))]
    assert torch.allclose(same[0], same[1], atol=1e-4)
    assert torch.allclose(same[0], same[2], atol=1e-4)


def test_stages_behind_a_random_layer_are_left_out() -> None:
    network = create_model("timm:test_resnet", 2)
    names = tuple(network.state_dict())
    assert n_pretrained_stages(network, names, input_size=64) == 0
    first = tuple(name for name in names if not name.startswith(("layer3", "layer4", "fc")))
    n_stages = n_pretrained_stages(network, first, input_size=64)
    info = [stage["module"] for stage in network.feature_info]
    assert info[:n_stages] == [name for name in info if name not in {"layer3", "layer4"}]
    assert n_pretrained_stages(network, (), input_size=64) == 0


def test_a_class_of_one_patient_stops_before_a_run_is_complete(probe: TrainConfig) -> None:
    manifest = read_manifest(probe.manifest)
    pink = (manifest.table["pink"] == 1) & (manifest.table["split"] == "train")
    table = manifest.table.assign(
        patient_id=manifest.table["patient_id"].where(~pink, "p-train-only")
    )
    write_manifest(manifest.with_table(table), probe.manifest)
    with pytest.raises(TrainingError, match=r"probe\.strengths"):
        train(probe)
    assert not (probe.out / "seal.json").exists()


@pytest.mark.parametrize(
    ("head", "pink", "blue"), [("softmax", [1, 1], [1, 0]), ("sigmoid", [1, 0], [1, 1])]
)
def test_a_class_without_contrast_is_named_before_features_are_computed(
    probe: TrainConfig, tmp_path: Path, head: str, pink: list[int], blue: list[int]
) -> None:
    manifest = read_manifest(probe.manifest)
    values = {
        "pink": pd.array(pink * 18, dtype="Int64"),
        "blue": pd.array(blue * 18, dtype="Int64"),
    }
    write_manifest(manifest.with_table(manifest.table.assign(**values)), probe.manifest)
    model = probe.model.model_copy(update={"head": head})
    with pytest.raises(TrainingError, match="blue"):
        train(probe.model_copy(update={"model": model}), features=tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_deleted_file_of_features_is_computed_again_and_no_other_replaced(
    probe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glomerulab.training.features.PART_SIZE", 16)
    out = tmp_path / "features"
    made = write_features(probe.manifest, "improved_seresnet_small", out, weights="random")
    table = pd.read_parquet(made.path)
    first, *others = sorted((out / "parts").glob("*.parquet"))
    kept = [path.read_bytes() for path in others]
    first.unlink()
    write_features(probe.manifest, "improved_seresnet_small", out, weights="random")
    assert [path.read_bytes() for path in others] == kept
    assert pd.read_parquet(made.path).equals(table)


def test_features_in_parts_are_those_of_one_run(probe, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("glomerulab.pipeline.embed.PART_SIZE", 16)
    arguments = (probe.manifest, "improved_seresnet_small")
    one = write_features(*arguments, tmp_path / "one", weights="random")
    for number in (2, 1):
        part = write_features(*arguments, tmp_path / "two", weights="random", part=(number, 2))
        assert part.n_features is None
    two = write_features(*arguments, tmp_path / "two", weights="random")
    assert two.path.read_bytes() == one.path.read_bytes()


def test_an_unreadable_image_does_not_stop_the_others(probe, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("glomerulab.pipeline.embed.PART_SIZE", 16)
    read_manifest(probe.manifest).image_paths()[3].write_bytes(b"no image")
    out = tmp_path / "out"
    arguments = (probe.manifest, "improved_seresnet_small", out)
    with pytest.raises(ImageFileError):
        write_features(*arguments, weights="random", part=(1, 1))
    stored = [len(pd.read_parquet(path)) for path in (out / "parts").glob("*.parquet")]
    assert sorted(stored) == [4, 16]  # of 36 images in groups of 16


def test_features_of_a_cluster_are_those_of_one_run(probe, tmp_path: Path) -> None:
    arguments = (probe.manifest, "improved_seresnet_small")
    one = write_features(*arguments, tmp_path / "one", weights="random")
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "local"\njobs = 1\nmemory = "2GB"\n')
    with open_workers(cluster=file) as workers:
        two = write_features(*arguments, tmp_path / "two", weights="random", workers=workers)
    found, expected = (pd.read_parquet(one.path) for one in (two, one))
    names = [name for name in expected if name.startswith("feature_")]
    np.testing.assert_allclose(found[names], expected[names], rtol=1e-4, atol=1e-5)


def test_embed_writes_one_row_per_image_and_continues(probe: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "features"
    written = write_features(
        probe.manifest, "improved_seresnet_small", out, weights="random", n_views=2
    )
    table = pd.read_parquet(written.path)
    assert table["image_id"].tolist() == [f"i{n}" for n in range(36)]
    assert {"patient_id", "split", "pink", "blue"} <= set(table)
    assert len([name for name in table if name.startswith("feature_")]) == written.n_features
    (part,) = (out / "parts").glob("*.parquet")
    before = part.stat().st_mtime_ns
    written.path.unlink()
    write_features(probe.manifest, "improved_seresnet_small", out, weights="random", n_views=2)
    assert pd.read_parquet(written.path).equals(table)
    assert part.stat().st_mtime_ns == before
    run = train(probe)
    of_run = write_features(probe.manifest, str(run), tmp_path / "of-run")
    assert of_run.n_images == 36
