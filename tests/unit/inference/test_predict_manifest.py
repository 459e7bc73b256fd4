from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.errors import ImageFileError, TaxonomyError
from glomerulab.images import write_image
from glomerulab.inference.predict_manifest import predict_manifest
from glomerulab.models.checkpoint import ModelCard, save_checkpoint
from glomerulab.models.feature_layers import classifier
from glomerulab.models.registry import create_model
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained network: what it says is fixed by its seed, which is all that is asked here."""
    model = create_model("improved_seresnet_small", 4, seed=1)
    card = ModelCard(
        model="improved_seresnet_small",
        taxonomy_name=PAPER.name,
        labels=PAPER.labels,
        input_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        head="sigmoid",
    )
    save_checkpoint(tmp_path / "run" / "checkpoint", model.state_dict(), card)
    return tmp_path / "run"


@pytest.fixture
def manifest(tmp_path: Path, rng: np.random.Generator):
    rows = []
    for number in range(7):
        image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        write_image(image, tmp_path / f"{number}.png")
        rows.append({"image_id": f"i{number}", "image_path": f"{number}.png", "normal": 1})
    return manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=PAPER)


def _values(table):
    return table[[f"probability_{name}" for name in PAPER.label_ids]].to_numpy()


def test_batches_and_processes_do_not_change_what_is_said(checkpoint, manifest):
    alone = predict_manifest(checkpoint, manifest, batch_size=1)
    together = predict_manifest(checkpoint, manifest, batch_size=3, n_workers=2)
    assert alone.table["image_id"].tolist() == manifest.table["image_id"].tolist()
    assert together.table["image_id"].tolist() == alone.table["image_id"].tolist()
    np.testing.assert_allclose(_values(alone.table), _values(together.table), atol=1e-6)
    np.testing.assert_allclose(alone.features, together.features, atol=1e-5)
    assert alone.failures == ()


def test_features_and_the_classifier_give_the_probabilities(checkpoint, manifest):
    found = predict_manifest(checkpoint, manifest)
    layer = classifier(create_model("improved_seresnet_small", 4, seed=1))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    logits = found.features @ weight.T + bias
    np.testing.assert_allclose(_values(found.table), 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_unreadable_images_are_named_and_the_others_predicted(checkpoint, manifest, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "5.png").unlink()
    found = predict_manifest(checkpoint, manifest, batch_size=2)
    assert found.table["image_id"].tolist() == ["i0", "i1", "i3", "i4", "i6"]
    assert [outcome.item for outcome in found.failures] == ["i2", "i5"]
    assert "5.png" in str(found.failures[1].error)


def test_where_nothing_can_be_read_the_first_error_is_raised(checkpoint, manifest, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(ImageFileError, match=r"0\.png"):
        predict_manifest(checkpoint, manifest)


def test_a_manifest_of_other_labels_is_refused(checkpoint, manifest):
    other = load_taxonomy(Path("configs/taxonomies/glas.toml"))
    rows = manifest.table[["image_id", "image_path"]]
    glas = manifest_from_rows(rows, folder=manifest.folder, taxonomy=other)
    with pytest.raises(TaxonomyError, match="the model answers normal, mspgn"):
        predict_manifest(checkpoint, glas)


def test_a_manifest_without_images_gives_an_empty_table(checkpoint, manifest):
    found = predict_manifest(checkpoint, manifest.with_table(manifest.table.iloc[:0]))
    assert found.table.empty
    assert "probability_cgn" in found.table
