"""Archives, databases and Parquet that are damaged, or that unpack to more than they may."""

import gzip
import io
import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.annotations import list_annotations
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.cases.rules import load_rule_set
from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import (
    CheckpointError,
    ConfigError,
    GlomerulabError,
    ManifestError,
    RegionError,
    SlideError,
    StoreError,
    TaxonomyError,
    TrainingError,
)
from glomerulab.evaluation.run_tables import read_history
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.runtime.resume import JsonLines
from glomerulab.slides.dicom import read_header
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide
from glomerulab.slides.tiff_structure import read_tiff
from glomerulab.taxonomy import load_taxonomy
from glomerulab.training.config import read_config
from glomerulab.training.start import read_start
from tests.support.annotation_studies import NORMAL, SCLEROSIS, make_study, save

COLUMNS = {"image_id": ["a", "b"], "image_path": ["a.png", "b.png"], "x": [1, None]}


def write_parquet(folder: Path, **columns: object) -> Path:
    arrays = {name: pa.array(cells) for name, cells in {**COLUMNS, **columns}.items()}
    pq.write_table(pa.table(arrays), folder / "m.parquet")
    return folder / "m.parquet"


def test_a_column_of_a_parquet_file_that_is_there_twice_is_named(tmp_path: Path) -> None:
    table = pq.read_table(write_parquet(tmp_path))
    pq.write_table(table.append_column("x", table.column("x")), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="two columns 'x'"):
        read_manifest(tmp_path / "m.parquet")


def test_ids_that_are_whole_numbers_in_parquet_keep_their_spelling(tmp_path: Path) -> None:
    table = read_manifest(write_parquet(tmp_path, patient_id=[12, None])).table
    assert list(table["patient_id"].fillna("")) == ["12", ""]


@pytest.mark.parametrize("cells", [[{"a": 1}, None], [b"\xff\xfe", b"a"]], ids=["objects", "bytes"])
def test_a_parquet_column_that_is_no_text_or_number_is_an_error(
    tmp_path: Path, cells: list[object]
) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(write_parquet(tmp_path, patient_id=cells))


def test_parquet_that_states_billions_of_rows_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glomerulab.runtime.parquet.MAX_ROWS", 1)
    with pytest.raises(ManifestError, match="2 rows"):
        read_manifest(write_parquet(tmp_path))


def test_a_compressed_region_file_stops_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glomerulab.slides.regions.parsing.MAX_BYTES", 5_000_000)
    path = tmp_path / "r.geojson.gz"
    path.write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(RegionError, match="5 MB"):
        read_regions(path)


def test_weights_that_unpack_to_a_thousand_times_their_size_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="unpack to 10 MB"):
        read_weights(tmp_path / "w.pth", nn.Linear(2, 2))


@pytest.mark.parametrize(
    "pickled",
    [b"\x80\x02}q\x00X\x01\x00", b"\x80\x02K\x01.", b"\x80\x02h\x28.", b"\x80\x02ctorch\nx\n."],
)
def test_a_damaged_pickle_is_an_error_that_names_it(tmp_path: Path, pickled: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
    for content in (buffer.getvalue(), pickled):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            read_weights(tmp_path / "w.pth", nn.Linear(2, 2))


DAMAGES = {
    "no JSON": "UPDATE event SET payload = '{\"labels\": {' WHERE kind = 'annotation'",
    "another object": "UPDATE event SET payload = '{}' WHERE kind = 'annotation'",
    "no study": "UPDATE event SET payload = '[]' WHERE kind = 'study'",
    "no time": "UPDATE event SET at = 'yesterday'",
    "half a box": "UPDATE image SET x = 3",
    "no head": "DELETE FROM ledger_head",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.db"
    with open_store(path, create=True) as store:
        make_study(store)
        save(store, "anna", "g000", NORMAL)
        save(store, "bo", "g000", SCLEROSIS)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cell_of_a_study_is_an_error_that_names_the_database(
    study: Path, tmp_path: Path, damage: str
) -> None:
    path = Path(shutil.copy(study, tmp_path / "copy.db"))
    with closing(sqlite3.connect(path)) as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute(DAMAGES[damage])
        connection.commit()
    with (
        open_store(path) as store,
        pytest.raises(StoreError, match="damaged") as caught,
    ):
        use(store)
    assert caught.value.where == str(path)


def use(store: Store) -> None:
    list_annotations(store, by="owner", every_version=True)
    list_image_readings(store, by="owner")
    save(store, "anna", "g001", NORMAL)


def test_a_record_that_is_nested_without_end_is_left_out(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"a": 1})
    with lines.path.open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert lines.read() == [{"a": 1}]


def test_a_history_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,train_loss,train_loss\n1,0.5,0.4\n")
    with pytest.raises(TrainingError, match="two columns 'train_loss'"):
        read_history(tmp_path / "history.csv")


def test_a_history_with_a_word_in_place_of_a_number_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,train_loss\n1,0.5\n2,low\n")
    with pytest.raises(TrainingError, match="line 3"):
        read_history(tmp_path / "history.csv")


def test_a_message_is_one_line_of_bounded_length() -> None:
    error = GlomerulabError("the cell is\n" + "x" * 1_000_000 + "; correct it")
    assert len(str(error)) < 2100
    assert str(error).startswith("the cell is x")
    assert str(error).endswith("; correct it")


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    words = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    path = write_parquet(tmp_path, stain=words)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert caught.value.where == str(path)


def test_a_number_of_too_many_digits_in_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"a = {'9' * 5000}\n")
    for read in (load_taxonomy, load_rule_set, read_config):
        with pytest.raises((ConfigError, TaxonomyError)) as caught:
            read(path)
        assert caught.value.where == str(path)


def test_a_configuration_named_by_too_many_letters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_config(tmp_path / ("x" * 70_000))


def test_a_record_of_initial_weights_of_another_shape_is_refused(tmp_path: Path) -> None:
    facts = {"source": "w", "pretrained": [], "loaded": [1], "energies": []}
    (tmp_path / "start.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError):
        read_start(tmp_path)


def test_a_tile_of_more_bytes_than_the_file_is_refused(tmp_path: Path) -> None:
    """OpenSlide would take the memory, and end the program where it gets none."""
    path = tmp_path / "slide.tif"
    write_pyramid(np.full((300, 300, 3), 200, dtype=np.uint8), path, mpp=0.5, tile_px=128)
    tiff = read_tiff(path)
    first = tiff.directories[0]
    counts = first.tags[325]
    huge = np.full(counts.count, 2**32 - 1, dtype="<u4").tobytes()
    content = bytearray(path.read_bytes())
    place = bytes(content).index(counts.value)
    content[place : place + len(huge)] = huge
    path.write_bytes(content)
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.where == str(path)


def test_a_damaged_dicom_header_is_none(tmp_path: Path) -> None:
    for number, content in enumerate(
        (
            b"",
            b"DICM",
            b"\0" * 128 + b"DICM\2\0\0\0UL\4\0\1\0\0",  # ends within a value
            b"\0" * 128 + b"DICM\2\0\0\0DI\4\0\1\0\0\0",  # no such type
            b"\0" * 128 + b"DICM\2\0\0\0UL\3\0\1\0\0",  # a number of 3 bytes
            b"\0" * 128 + b"DICM\2\0\1\0OB\0\0\xff\xff\xff\x7f",  # 2 GiB that are not there
        )
    ):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        header = read_header(path, ["Rows"])
        assert header is None or "Rows" not in header
