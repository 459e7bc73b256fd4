import csv
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glomerulab.apps.annotation.consensus import majority_labels
from glomerulab.apps.annotation.exports import (
    annotations_table,
    annotator_manifest,
    final_manifest,
    write_events,
    write_table,
)
from glomerulab.apps.annotation.records import Image, Study, StudySettings
from glomerulab.apps.annotation.store.ledger import Event, entry_hash
from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.cohort.paper_labels import write_paper_labels
from glomerulab.cohort.validation import validate_manifest
from glomerulab.errors import OutputError
from glomerulab.geometry import Box
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, image_readings

STUDY = Study(StudySettings("study"), load_taxonomy("paper"), Path("/images"), 1)


def _image_readings() -> list:
    images = [
        Image("g1", Path("/images/g1.png"), "p1", "S-1", "HE", 0.25, Box(1, 2, 30, 40)),
        *(Image(f"g{number}", Path(f"/images/g{number}.png")) for number in (2, 3, 4)),
    ]
    return [
        image_readings([CRESCENT, CRESCENT], image=images[0]),
        image_readings([CRESCENT, NORMAL], image=images[1]),
        image_readings([CRESCENT, NORMAL], image=images[2], settled=SCLEROSIS),
        image_readings([{"cgn": 1}], image=images[3]),
    ]


def _with_paths(images_read: list) -> list:

    return [replace(one, image_path=one.image.image_path.name) for one in images_read]


def test_settled_labels_are_exported_and_unsettled_ones_stay_unknown(tmp_path: Path) -> None:
    path = tmp_path / "final.csv"
    write_manifest(final_manifest(_with_paths(_image_readings()), STUDY), path)
    table = read_manifest(path).table.set_index("image_id")
    assert table["settled"].tolist() == ["agreed", "disagreed", "consensus", "incomplete"]
    assert table.loc["g1", list(CRESCENT)].to_dict() == CRESCENT
    assert table.loc["g3", list(SCLEROSIS)].to_dict() == SCLEROSIS
    assert table.loc[["g2", "g4"], list(NORMAL)].isna().all(axis=None)
    assert table.loc["g1", ["patient_id", "slide_id", "stain"]].tolist() == ["p1", "S-1", "HE"]
    assert table.loc["g1", ["x", "y", "width", "height"]].tolist() == [1, 2, 30, 40]


@st.composite
def _taxonomies(draw: st.DrawFn) -> Taxonomy:
    ids = [f"l{number}" for number in range(draw(st.integers(2, 6)))]
    return Taxonomy(
        "drawn",
        tuple(
            Label(id=one, name=one, excludes=tuple(draw(st.sets(st.sampled_from(ids))) - {one}))
            for one in ids
        ),
    )


def _readings_of(taxonomy: Taxonomy) -> st.SearchStrategy[list[dict[str, int | None]]]:
    flags = st.fixed_dictionaries(
        {one: st.sampled_from([0, 1, None]) for one in taxonomy.label_ids}
    )
    return st.lists(flags.filter(lambda one: not taxonomy.conflicts(one)), min_size=1, max_size=5)


@settings(suppress_health_check=list(HealthCheck), max_examples=150)
@given(data=st.data(), n_readers=st.integers(1, 3))
def test_whatever_readers_agree_on_passes_the_check_of_a_manifest(
    tmp_path, data, n_readers
) -> None:
    taxonomy = data.draw(_taxonomies())
    readings = data.draw(_readings_of(taxonomy))
    (tmp_path / "g.png").touch()
    study = Study(StudySettings("s", n_readers=n_readers), taxonomy, tmp_path, 1)
    by_rule = majority_labels(readings, taxonomy)
    one = image_readings(readings, settled=data.draw(st.sampled_from([None, by_rule])))
    manifest = final_manifest([one], study, soft=True)
    assert validate_manifest(manifest, check_pixels=False) == []
    if manifest.table["settled"].item() == "agreed":
        labels = manifest.labels()[0]
        for reading in readings:
            said = [
                np.nan if reading[name] is None else reading[name] for name in taxonomy.label_ids
            ]
            assert np.all(np.isnan(said) | (np.array(said) == labels))
        assert len(readings) >= n_readers


def test_normal_and_crescent_are_no_agreement_where_the_rest_is_unknown() -> None:
    one = image_readings([{"normal": 1}, {"cgn": 1}])
    table = final_manifest([one], STUDY).table
    assert table["settled"].item() == "disagreed"
    assert table[list(NORMAL)].isna().all(axis=None)


def test_soft_labels_are_shares_of_the_readers() -> None:
    table = final_manifest(_with_paths(_image_readings()), STUDY, soft=True).table.set_index(
        "image_id"
    )
    assert table.loc["g2", ["soft_normal", "soft_cgn", "soft_fsg"]].tolist() == [0.5, 0.5, 0.0]
    assert table.loc["g4", "soft_cgn"] == 1.0
    assert pd.isna(table.loc["g4", "soft_mspgn"])


def test_the_papers_json_of_one_annotator(tmp_path: Path) -> None:
    images_read = _with_paths(_image_readings())[:1]
    readings = images_read[0].readings
    manifest = annotator_manifest(images_read, readings, STUDY, login="reader1")
    write_paper_labels(manifest, tmp_path / "labels.json")
    assert (tmp_path / "labels.json").read_text(encoding="utf-8") == (
        '[{"image_name": "g1.png", "正常肾小球": 0, "节段性硬化": 0, "系膜细胞增生": 0, '
        '"新月体形成": 1}]\n'
    )
    assert len(annotator_manifest(images_read, readings, STUDY, login="unknown").table) == 0


def test_a_table_of_annotations_keeps_unknown_apart_from_absent(tmp_path: Path) -> None:
    images_read = _image_readings()
    readings = [reading for one in images_read for reading in one.readings]
    images = {one.image.image_id: one.image for one in images_read}
    write_table(annotations_table(readings, images, STUDY.taxonomy.label_ids), tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 7
    assert [rows[-1][name] for name in NORMAL] == ["", "", "", "1"]
    assert (rows[0]["patient_id"], rows[0]["annotator"], rows[0]["cgn"]) == ("p1", "reader1", "1")
    with pytest.raises(OutputError, match=r"must end in \.csv"):
        write_table(pd.DataFrame(), tmp_path / "all.xlsx")


def _event(sequence: int, previous: str) -> Event:
    row = {
        "sequence": sequence,
        "at": "2026-01-02T03:04:05.000006+00:00",
        "actor": "anna",
        "kind": "annotation",
        "subject": "7",
        "version": sequence,
        "save_key": None,
        "payload": '{"note":"新月体","labels":{"cgn":1}}',
        "previous_hash": previous,
    }
    payload = json.loads(row["payload"])
    row["payload"] = json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Event(
        **{
            **row,
            "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            "payload": payload,
            "hash": entry_hash(row),
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_exported_record_can_be_verified_by_whoever_reads_it(
    tmp_path: Path, suffix: str
) -> None:
    first = _event(1, "0" * 64)
    path = tmp_path / f"audit{suffix}"
    assert write_events([first, _event(2, first.hash)], path) == 2
    if suffix == ".csv":
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
        rows = [row | {"payload": json.loads(row["payload"]), "save_key": None} for row in rows]
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    previous = "0" * 64
    for row in rows:
        compact = {"ensure_ascii": False, "sort_keys": True, "separators": (",", ":")}
        sealed = [
            int(row["sequence"]),
            row["at"],
            row["actor"],
            row["kind"],
            row["subject"],
            int(row["version"]),
            row["save_key"],
            json.dumps(row["payload"], **compact),
            previous,
        ]
        text = json.dumps(sealed, ensure_ascii=False, separators=(",", ":"))
        assert row["hash"] == hashlib.sha256(text.encode()).hexdigest()
        previous = row["hash"]


def test_a_record_in_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"csv or \.jsonl"):
        write_events([], tmp_path / "audit.txt")
