"""A segmenter is trained, resumed to the bit, scored on held-out groups, and sealed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.errors import (
    CheckpointError,
    ConfigError,
    GlomerulabError,
    OutputError,
    TrainingError,
)
from glomerulab.inference.segmenter import open_segmenter
from glomerulab.models.segmentation import load_segmenter, save_segmenter
from glomerulab.pipeline.train_segmenter import train_segmenter
from glomerulab.runtime.sealing import check_seal
from tests.support.segmenters import write_segmenter
from tests.unit.training.segmentation.conftest import Configure, MakeFields, disc_set, draw_discs


class StopError(Exception):
    """Ends a training as Ctrl+C would."""


def test_a_run_is_scored_sealed_and_opened(make_fields: MakeFields, configure: Configure) -> None:
    config = configure(disc_set(make_fields(6), stain="PAS"))
    trained = train_segmenter(config)
    run = trained.run
    assert check_seal(run)
    assert (run / "fields.csv").stat().st_mode == (run / "history.csv").stat().st_mode
    fields = pd.read_csv(run / "fields.csv")
    assert (fields["part"] == "held out").sum() == 2
    scores = pd.read_csv(run / "structure_scores.csv")
    assert scores["n_fields"].tolist() == [2]
    assert len(pd.read_csv(run / "history.csv")) == 2
    segmenter = open_segmenter(run)
    card = segmenter.card
    assert (card.structures, card.cores, card.epoch) == (("glomerulus",), ("glomerulus",), 2)
    assert card.stains_seen == ("PAS",)
    assert "Dice" in card.test_summary
    assert card.test_summary_zh
    assert card.dice == {"glomerulus": pytest.approx(scores["dice"][0])}
    assert not (run / "state").exists()
    with pytest.raises(OutputError):
        train_segmenter(config)
    again = train_segmenter(config, resume=True)
    assert [one.dice for one in again.scores] == [one.dice for one in trained.scores]


def test_scores_of_an_earlier_version_are_read_beside_its_card(
    make_fields: MakeFields, configure: Configure
) -> None:
    run = train_segmenter(configure(disc_set(make_fields(6)), epochs=1)).run
    dice = open_segmenter(run).card.dice
    network, card = load_segmenter(run)
    (run / "seal.json").unlink()
    save_segmenter(run / "checkpoint", network.state_dict(), card.model_copy(update={"dice": {}}))
    assert open_segmenter(run).card.dice == pytest.approx(dice)
    assert open_segmenter(run / "checkpoint").card.dice == {}


def test_a_resumed_run_ends_with_the_same_weights(
    make_fields: MakeFields, configure: Configure, tmp_path: Path
) -> None:
    given = disc_set(make_fields(4))
    whole = configure(given, out=tmp_path / "whole", epochs=3)
    stopped = configure(given, out=tmp_path / "stopped", epochs=3)
    train_segmenter(whole)

    def stop_in_epoch_2(items, text, total):
        for number, item in enumerate(items):
            if total == 6 and number == 3:
                raise StopError
            yield item

    with pytest.raises(StopError):
        train_segmenter(stopped, track=stop_in_epoch_2)
    assert len(pd.read_csv(stopped.out / "history.csv")) == 1
    with pytest.raises(ConfigError, match="seed"):
        train_segmenter(configure(given, out=stopped.out, epochs=3, seed=5), resume=True)
    train_segmenter(stopped, resume=True)
    one, other = (load_segmenter(config.out)[0].state_dict() for config in (whole, stopped))
    assert all((one[key] == other[key]).all() for key in one)


def test_changed_masks_are_noticed_when_a_run_is_resumed(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(3)
    config = configure(disc_set(folder), epochs=1)
    train_segmenter(config)
    (config.out / "seal.json").unlink()
    Image.fromarray(draw_discs(9)[1].astype(np.uint8) * 7).save(folder / "masks" / "f0.png")
    with pytest.raises(ConfigError, match="changed"):
        train_segmenter(config, resume=True)


def test_every_group_is_held_out_once_in_a_cross_validation(
    make_fields: MakeFields, configure: Configure
) -> None:
    given = disc_set(make_fields(4), values={"7": ["glomerulus", "tufft"]})
    given["knows"] = ["glomerulus", "tufft"]
    config = configure(given, epochs=1, patches_per_epoch=4)
    lines: list[str] = []
    trained = train_segmenter(config, folds=2, echo=lines.append)
    assert any("tufft" in line and "tuft" in line.split("tufft")[1] for line in lines)
    counts = pd.read_csv(trained.run / "field_scores.csv")
    assert sorted(set(counts["field"])) == [f"discs/f{n}" for n in range(4)]
    parts = [pd.read_csv(trained.run / f"runs/fold-{k}/fields.csv") for k in (0, 1)]
    held = [set(one.loc[one["part"] == "held out", "field"]) for one in parts]
    assert not held[0] & held[1]
    assert check_seal(trained.run)
    with pytest.raises(CheckpointError, match="fold-0"):
        open_segmenter(trained.run)
    again = train_segmenter(config, folds=2)
    assert [one.dice for one in again.scores] == [one.dice for one in trained.scores]
    with pytest.raises(GlomerulabError, match="fold"):
        train_segmenter(config, folds=3)
    with pytest.raises(ConfigError, match="folds"):
        train_segmenter(config)


def test_another_segmenter_is_a_start(
    make_fields: MakeFields, configure: Configure, tmp_path: Path
) -> None:
    given = disc_set(make_fields(3))
    first = train_segmenter(configure(given, out=tmp_path / "first")).run
    lines: list[str] = []
    config = configure(
        given, start={"weights": str(first)}, epochs=1, optimizer={"learning_rate": 1e-12}
    )
    second = train_segmenter(config, echo=lines.append).run
    one, other = (dict(load_segmenter(run)[0].named_parameters()) for run in (first, second))
    assert all(np.allclose(one[k].detach(), other[k].detach(), atol=1e-6) for k in one)
    assert any(str(first) in line for line in lines)
    with pytest.raises(ConfigError, match="mobilenetv2_035"):
        train_segmenter(
            configure(
                given,
                start={"weights": str(first)},
                encoder="mobilenetv2_035",
                out=tmp_path / "third",
            )
        )
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("wanted", ["none", "imagenet", "onnx"])
def test_weights_that_are_not_there_are_told_before_images_are_read(
    make_fields: MakeFields,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GLOMERULAB_WEIGHTS", str(tmp_path / "weights"))
    write_segmenter(tmp_path / "onnx")
    weights = wanted if wanted == "imagenet" else str(tmp_path / wanted)
    config = configure(disc_set(make_fields(3)), start={"weights": weights})

    def no_image_is_read(*_: object) -> None:
        raise AssertionError

    with pytest.raises(CheckpointError):
        train_segmenter(config, track=no_image_is_read)
    assert not config.out.exists()


def test_a_structure_that_no_training_image_shows_is_named(
    make_fields: MakeFields, configure: Configure
) -> None:
    given = disc_set(make_fields(2), values={"7": "glomerulus", "8": "tuft"})
    given["knows"] = ["glomerulus", "tuft"]
    config = configure(given)
    with pytest.raises(TrainingError, match="tuft"):
        train_segmenter(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("encoder", "is_told"), [("mobilenetv3_small_050", True), ("mobilenetv2_035", False)]
)
def test_encoders_whose_result_depends_on_the_tile_are_told(
    make_fields: MakeFields, configure: Configure, encoder: str, is_told: bool
) -> None:
    lines: list[str] = []
    config = configure(
        disc_set(make_fields(2)), encoder=encoder, epochs=1, patches_per_epoch=2, batch_size=2
    )
    train_segmenter(config, echo=lines.append)
    assert any("warning" in line and encoder in line for line in lines) == is_told


@pytest.mark.slow
def test_a_training_learns_discs(make_fields: MakeFields, configure: Configure) -> None:
    config = configure(
        disc_set(make_fields(16, side=128)),
        epochs=15,
        patches_per_epoch=48,
        batch_size=8,
        optimizer={"learning_rate": 3e-3},
        encoder="mobilenetv2_050",
    )
    (score,) = train_segmenter(config).scores
    assert score.dice > 0.9
    assert open_segmenter(config.out).card.epoch == 15


def test_the_command_tells_what_it_did_not_use(make_fields: MakeFields, tmp_path: Path) -> None:
    folder = make_fields(4)
    (folder / "masks" / "f3.png").unlink()
    toml = folder / "segmenter.toml"
    toml.write_text(
        'out = "run"\nencoder = "mobilenetv2_050"\npatch_px = 64\nepochs = 1\n'
        "patches_per_epoch = 4\nbatch_size = 4\nheld_out_share = 0.34\n[[sets]]\n"
        'images = "images"\nmasks = "masks"\nvalues = { 7 = "glomerulus" }\n'
        'knows = ["glomerulus"]\nmpp = 1.0\n'
    )
    done = CliRunner().invoke(app, ["train-segmenter", str(toml), "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert "images/f3" in done.stderr
    assert "Dice" in done.stdout
    assert "1 of 4 images" in done.stdout
    assert done.stdout.index("1 of 4 images") < done.stdout.index("start: ")
    assert (tmp_path / "run" / "seal.json").is_file()
    assert not (folder / "run").exists()


def test_without_held_out_groups_the_command_tells_the_way_out(
    make_fields: MakeFields, tmp_path: Path
) -> None:
    folder = make_fields(2)
    toml = folder / "segmenter.toml"
    toml.write_text(
        'encoder = "mobilenetv2_050"\npatch_px = 64\nepochs = 1\n'
        "patches_per_epoch = 2\nbatch_size = 2\nheld_out_share = 0.0\n[[sets]]\n"
        'images = "images"\nmasks = "masks"\nvalues = { 7 = "glomerulus" }\n'
        'knows = ["glomerulus"]\nmpp = 1.0\n'
    )
    done = CliRunner().invoke(app, ["train-segmenter", str(toml), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "held_out_share" in done.stdout
    assert "--folds" in done.stdout
    assert open_segmenter(tmp_path / "run").card.dice == {}
