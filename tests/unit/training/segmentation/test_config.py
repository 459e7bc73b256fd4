"""A configuration tells what is contradictory before anything is read."""

from pathlib import Path

import pytest

from glomerulab.errors import ConfigError
from glomerulab.runtime.shipped import shipped_configs
from glomerulab.training.segmentation.config import (
    SegmenterConfig,
    SetConfig,
    read_segmenter_config,
    write_segmenter_config,
)

TOML = """
out = "run"
[[sets]]
name = "one"
images = "images"
masks = "masks"
values = { 1 = "glomerulus", 2 = ["tuft"], 3 = "ignore" }
knows = ["glomerulus", "tuft"]
[[sets]]
images = "slides.csv"
masks = "regions"
classes = { "Tubule wall" = "tubule" }
knows = ["tubule"]
"""


def read(tmp_path: Path, text: str = TOML, **overrides: object):
    path = tmp_path / "segmenter.toml"
    path.write_text(text)
    return read_segmenter_config(path, overrides)


def test_paths_are_relative_to_the_file_and_sets_are_named(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.out == tmp_path / "run"
    assert config.sets[0].images == tmp_path / "images"
    assert config.sets[1].masks == tmp_path / "regions"
    assert [one.name for one in config.sets] == ["one", "slides"]
    assert config.ordered_structures() == ("tubule", "glomerulus", "tuft")


def test_a_written_configuration_is_read_back_equal(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for changes in ({}, {"augmentation": False}):
        config = read(tmp_path, **changes)
        write_segmenter_config(config, tmp_path / "copy" / "config.toml")
        assert read_segmenter_config(tmp_path / "copy" / "config.toml") == config


@pytest.mark.parametrize(
    ("before", "after", "subject"),
    [
        ('out = "run"', 'out = "run"\nstructures = ["artery"]', "artery"),
        ('knows = ["tubule"]', 'knows = ["artery"]', "artery"),
        ('name = "one"', 'name = "slides"', "slides"),
        ("3 =", "three =", "three"),
        ('masks = "masks"', 'masks = "masks"\nclasses = { a = "tuft" }', "values"),
        ('masks = "masks"', 'masks = "masks"\nstain = "PAX"', "PAX"),
        ('masks = "masks"', 'mask = "masks"', "mask"),
        ('out = "run"', 'out = "run"\npatch_px = 100', "patch_px"),
        ('out = "run"', 'out = "run"\nbatch_size = 1', "batch_size"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, before: str, after: str, subject: str) -> None:
    assert before in TOML
    with pytest.raises(ConfigError, match=subject):
        read(tmp_path, TOML.replace(before, after))


def test_sets_that_know_nothing_train_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows"):
        read(tmp_path, "\n".join(line for line in TOML.splitlines() if "knows" not in line))


def test_classes_without_a_table_are_structures_by_id_or_name(tmp_path: Path) -> None:
    text = TOML.replace('classes = { "Tubule wall" = "tubule" }', "")
    classes = read(tmp_path, text).sets[1].outline_classes()
    assert classes["atrophic_tubule"] == classes["Atrophic tubule"] == ("atrophic_tubule",)


def test_the_shipped_configuration_is_valid_and_shows_every_key() -> None:
    path = shipped_configs()["segmenter"]
    config = read_segmenter_config(path)
    assert config.start.weights == "imagenet"
    text = path.read_text(encoding="utf-8")
    keys = SegmenterConfig.model_fields.keys() | SetConfig.model_fields.keys()
    assert [key for key in keys if key not in text] == []
