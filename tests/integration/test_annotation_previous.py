"""A study that an earlier version of the program wrote is opened, verified and continued.

``tests/data/previous/annotations.db`` and the exports beside it were written by version 0.1, before
the packages were rearranged: three annotators, every kind of ledger entry, a repeat, a skip, a
changed reading, adjudications, a third reader, imported labels, regions and a model's calls.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.apps.annotation.exports import annotations_table, final_manifest, write_table
from glomerulab.apps.annotation.store.accounts import check_password
from glomerulab.apps.annotation.store.adjudications import adjudicate_all, list_image_readings
from glomerulab.apps.annotation.store.annotations import list_annotations
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.ledger import (
    iterate_events,
    parse_head,
    read_head,
    verify_store,
)
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.apps.annotation.store.study import read_study
from glomerulab.cohort.manifest import write_manifest
from glomerulab.cohort.paper_labels import write_paper_labels
from tests.conftest import ROOT
from tests.support.annotation_studies import CRESCENT, OWNER, PASSWORD, next_item, save

PREVIOUS = ROOT / "tests" / "data" / "previous"
HEAD = parse_head("33:9a07bb9503a5b88eb2159d19ba86c8f24ac6759171e2f5c45a8693517d451765")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    shutil.copy(PREVIOUS / "annotations.db", tmp_path / "annotations.db")
    with open_store(tmp_path / "annotations.db") as opened:
        yield opened


def test_an_earlier_database_verifies_and_reads_as_it_was_written(store: Store) -> None:
    found = verify_store(store, earlier=HEAD)
    assert (found.problems, found.head) == ((), HEAD)
    assert Counter(entry.kind for entry in iterate_events(store)) == {
        "account": 6,
        "study": 2,
        "images": 2,
        "assignments": 3,
        "model": 1,
        "annotation": 12,
        "adjudication": 2,
        "region": 5,
    }
    assert read_study(store).settings.name == "IgA study 研究"
    assert check_password(store, login="anna", password=PASSWORD) is not None
    assert [(one.region_id, one.version) for one in list_regions(store, login=OWNER)] == [
        ("r1", 2),
        ("r2", 1),
    ]


def test_an_earlier_database_exports_the_same_files(store: Store, tmp_path: Path) -> None:
    study, outcomes = read_study(store), list_image_readings(store, by=OWNER)
    soft = final_manifest(outcomes, study, soft=True)
    write_manifest(replace(soft, folder=tmp_path), tmp_path / "manifest_soft.csv")
    write_paper_labels(final_manifest(outcomes, study), tmp_path / "labels.json")
    images = {one.image.image_id: one.image for one in outcomes}
    versions = list_annotations(store, by=OWNER, every_version=True)
    table = annotations_table(versions, images, study.taxonomy.label_ids)
    write_table(table, tmp_path / "history.csv")
    for expected in sorted((PREVIOUS / "annotations").iterdir()):
        assert (tmp_path / expected.name).read_bytes() == expected.read_bytes(), expected.name


def test_an_earlier_study_continues(store: Store) -> None:
    item = next_item(store, "anna")
    assert item is not None
    saved = save(store, "anna", item.image.image_id, CRESCENT)
    assert (saved.version, saved.sequence, saved.model_shown) == (1, HEAD.sequence + 1, True)
    save(store, "anna", "g001", CRESCENT)
    assert adjudicate_all(store, "majority", by=OWNER).unresolved == ("g001",)
    found = verify_store(store, earlier=HEAD)
    assert (found.problems, found.head) == ((), read_head(store))
    assert found.n_entries == HEAD.sequence + 2
