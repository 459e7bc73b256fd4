from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.annotations import item_at, list_items
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.imported_labels import import_labels
from glomerulab.apps.annotation.store.readings import list_annotations
from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import AnnotationError, NotAllowedError
from tests.support.annotation_studies import CRESCENT, NORMAL, OWNER, make_study, save

HEADER = "image_id,image_path,normal,mspgn,fsg,cgn\n"


def _manifest(folder: Path, rows: str) -> Manifest:
    (folder / "labels.csv").write_text(HEADER + rows)
    return read_manifest(folder / "labels.csv")


def test_imported_labels_are_readings_that_say_so(store: Store, tmp_path: Path) -> None:
    make_study(store, n_images=4)
    manifest = _manifest(tmp_path, "g000,a,0,0,0,1\ng001,b,,1,,\ng002,c,,,,\nzz,d,1,0,0,0\n")
    done = import_labels(store, manifest, login="anna", by=OWNER)
    assert (done.n_imported, done.n_read_already, done.n_without_labels) == (2, 0, 1)
    assert done.not_in_study == ("zz",)
    said = {one.image_id: one for one in list_annotations(store, by=OWNER)}
    assert said["g000"].judgement.labels == CRESCENT
    assert said["g001"].judgement.labels == {"normal": None, "mspgn": 1, "fsg": None, "cgn": None}
    assert {one.source for one in said.values()} == {"import"}
    states = {item.image_id: item.state for item in list_items(store, "anna")}
    assert states == {"g000": "done", "g001": "done", "g002": "open", "g003": "open"}


def test_an_import_overwrites_nothing_that_was_read(store: Store, tmp_path: Path) -> None:
    make_study(store)
    save(store, "anna", "g000", NORMAL)
    manifest = _manifest(tmp_path, "g000,a,0,0,0,1\n")
    assert import_labels(store, manifest, login="anna", by=OWNER).n_read_already == 1
    [kept] = list_annotations(store, by=OWNER)
    assert kept.judgement.labels == NORMAL


def test_labels_can_be_imported_before_anything_is_distributed(
    store: Store, tmp_path: Path
) -> None:
    make_study(store, distributed=False)
    import_labels(store, _manifest(tmp_path, "g002,a,1,0,0,0\n"), login="anna", by=OWNER)
    assert item_at(store, "anna", 1).annotation.judgement.labels == NORMAL


def test_labels_that_exclude_each_other_are_named_and_none_is_imported(
    store: Store, tmp_path: Path
) -> None:
    make_study(store)
    manifest = _manifest(tmp_path, "g000,a,0,0,0,1\ng001,b,1,0,0,1\n")
    with pytest.raises(AnnotationError, match="g001: normal and cgn exclude"):
        import_labels(store, manifest, login="anna", by=OWNER)
    assert list_annotations(store, by=OWNER) == []
    with pytest.raises(NotAllowedError):
        import_labels(store, manifest, login="anna", by="anna")
