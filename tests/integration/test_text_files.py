"""Every reader of a text file: what is damaged is one error that names the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glomerulab.apps.serve.auth import add_key, read_keys
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import read_rows
from glomerulab.cases.rules import load_rule_set
from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.paper_labels import import_paper_labels
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import GlomerulabError
from glomerulab.inference.engines.onnx_engine import OnnxEngine
from glomerulab.predictions import read_predictions
from glomerulab.runtime.files import read_configuration
from glomerulab.runtime.resume import SettingsFile
from glomerulab.runtime.sealing import check_seal, read_bundle
from glomerulab.slides.regions.files import read_regions
from glomerulab.stain.reference import read_reference
from glomerulab.taxonomy import load_taxonomy, write_taxonomy
from glomerulab.training.compare import measure_cost, read_compare_config
from glomerulab.training.config import read_config
from glomerulab.training.start import read_start

PAPER = load_taxonomy("paper")

READERS: dict[str, Callable[[Path], object]] = {
    "settings.toml": read_configuration,
    "train.toml": read_config,
    "compare.toml": read_compare_config,
    "taxonomy.toml": load_taxonomy,
    "rules.toml": load_rule_set,
    "case.json": read_case_folder,
    "overrides.csv": read_rows,
    "card.json": lambda path: OnnxEngine(path.parent),
    "reference.json": read_reference,
    "keys.json": read_keys,
    "labels.json": lambda path: import_paper_labels(path, PAPER),
    "seal.json": lambda path: check_seal(path.parent),
    "calibration.json": lambda path: read_bundle(path.parent, "calibration"),
    "start.json": lambda path: read_start(path.parent),
    "cost.json": lambda path: measure_cost(path.parent, path),
    "extract.json": lambda path: SettingsFile(path).read(),
    "regions.geojson": read_regions,
    "regions.xml": read_regions,
    "regions.csv": read_regions,
    "manifest.csv": read_manifest,
    "slides.csv": read_slides,
    "predictions.csv": lambda path: read_predictions(path, PAPER),
}

DAMAGED = {
    "of another encoding": '{"name": "Nephrologie Zürich"}\n'.encode("latin-1"),
    "in UTF-16": '{"name": "x"}\n'.encode("utf-16"),
    "binary": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xfe\x00",
    "cut off": b'{"name": "x", "labels": [{"id": ',
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"name": ' + b"1" * 10_000 + b"}",
    "a list": b"[1, 2]",
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str, damage: str) -> None:
    (tmp_path / name).write_bytes(DAMAGED[damage])
    with pytest.raises(GlomerulabError) as caught:
        READERS[name](tmp_path / name)
    assert str(caught.value.where).startswith(str(tmp_path))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


NOT_REQUIRED = {"overrides.csv", "extract.json", "start.json", "seal.json", "cost.json"}


@pytest.mark.parametrize("name", sorted(READERS.keys() - NOT_REQUIRED))
def test_a_missing_file_is_an_error_with_the_way_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(GlomerulabError, match=";") as caught:
        READERS[name](tmp_path / name)
    assert "No such file" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    taxonomy, keys, settings = (tmp_path / name for name in ("t.toml", "k.json", "s.toml"))
    write_taxonomy(PAPER, taxonomy)
    add_key(keys, "ward 3")
    settings.write_text("epochs = 3\n")
    for path in (taxonomy, keys, settings):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_taxonomy(taxonomy) == PAPER
    assert [key.name for key in read_keys(keys)] == ["ward 3"]
    assert read_configuration(settings)[1] == {"epochs": 3}


def test_text_in_utf_16_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("epochs = 3\n", encoding="utf-16")
    with pytest.raises(GlomerulabError, match="UTF-16"):
        read_configuration(path)
