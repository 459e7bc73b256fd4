from pathlib import Path

import pandas as pd
import pytest

from glomerulab.apps.annotation.store.annotations import item_at, list_annotations, list_items
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.imports import import_labels, import_model_calls
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import AnnotationError, NotAllowedError
from tests.support.annotation_studies import CRESCENT, NORMAL, OWNER, make_study, save

HEADER = "image_id,image_path,normal,mspgn,fsg,cgn\n"


def _manifest(folder: Path, rows: str) -> Manifest:
    (folder / "labels.csv").write_text(HEADER + rows)
    return read_manifest(folder / "labels.csv")


def test_imported_labels_are_readings_with_their_source(store: Store, tmp_path: Path) -> None:
    make_study(store, n_images=4)
    manifest = _manifest(tmp_path, "g000,a,0,0,0,1\ng001,b,,1,,\ng002,c,,,,\nzz,d,1,0,0,0\n")
    done = import_labels(store, manifest, login="anna", by=OWNER)
    assert (done.n_imported, done.n_already_read, done.n_without_labels) == (2, 0, 1)
    assert done.not_in_study == ("zz",)
    saved = {one.image_id: one for one in list_annotations(store, by=OWNER)}
    assert saved["g000"].content.labels == CRESCENT
    assert saved["g001"].content.labels == {"normal": None, "mspgn": 1, "fsg": None, "cgn": None}
    assert {one.source for one in saved.values()} == {"import"}
    states = {item.image_id: item.state for item in list_items(store, "anna")}
    assert states == {"g000": "done", "g001": "done", "g002": "open", "g003": "open"}


def test_an_import_overwrites_nothing_that_was_read(store: Store, tmp_path: Path) -> None:
    make_study(store)
    save(store, "anna", "g000", NORMAL)
    manifest = _manifest(tmp_path, "g000,a,0,0,0,1\n")
    assert import_labels(store, manifest, login="anna", by=OWNER).n_already_read == 1
    [kept] = list_annotations(store, by=OWNER)
    assert kept.content.labels == NORMAL


def test_labels_can_be_imported_before_anything_is_distributed(
    store: Store, tmp_path: Path
) -> None:
    make_study(store, distributed=False)
    import_labels(store, _manifest(tmp_path, "g002,a,1,0,0,0\n"), login="anna", by=OWNER)
    assert item_at(store, "anna", 1).annotation.content.labels == NORMAL


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


def _predictions(*image_ids: str, cgn: float = 0.7) -> pd.DataFrame:
    rows = {"normal": 0.1, "mspgn": 0.1, "fsg": 0.1, "cgn": cgn}
    return pd.DataFrame(
        [
            {"image_id": name, **{f"probability_{k}": v for k, v in rows.items()}}
            for name in image_ids
        ]
    )


def test_the_model_is_hidden_by_default(store: Store) -> None:
    make_study(store, n_images=1)
    import_model_calls(store, _predictions("g000"), source="run-1", by=OWNER)
    assert item_at(store, "anna", 1).model is None


def test_a_study_that_shows_the_model_shows_its_latest_calls(store: Store) -> None:
    make_study(store, n_images=2, show_model=True)
    import_model_calls(store, _predictions("g000", "g001"), source="run-1", by=OWNER)
    latest = _predictions("g000", "elsewhere", cgn=0.9)
    assert import_model_calls(store, latest, source="run-2", by=OWNER) == 1
    items = {item.image.image_id: item for item in (item_at(store, "anna", n) for n in (1, 2))}
    assert items["g000"].model == {"normal": 0.1, "mspgn": 0.1, "fsg": 0.1, "cgn": 0.9}
    assert items["g001"].model is None


def test_predictions_of_other_images_and_of_an_annotator_are_refused(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="no image of the study"):
        import_model_calls(store, _predictions("elsewhere"), source="run", by=OWNER)
    with pytest.raises(NotAllowedError):
        import_model_calls(store, _predictions("g000"), source="run", by="anna")


def test_a_probability_that_was_changed_later_is_found(store: Store) -> None:
    make_study(store)
    import_model_calls(store, _predictions("g000"), source="run", by=OWNER)
    assert verify_store(store).problems == ()
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE model_call SET probability = 0.2")
    assert "model's probabilities" in verify_store(store).problems[0]
