"""Work on many rows is written in parts: others write in between, and a killed one is continued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pandas as pd
import pytest

from glomerulab.apps.annotation.store.adjudications import (
    adjudicate,
    adjudicate_all,
    list_disagreements,
)
from glomerulab.apps.annotation.store.annotations import item_at, list_annotations, list_items
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import PART, Store
from glomerulab.apps.annotation.store.imports import import_labels, import_model_calls
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.apps.annotation.store.study import add_images, images_from_manifest
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import AnnotationError
from tests.support.annotation_studies import (
    CRESCENT,
    NORMAL,
    OWNER,
    SCLEROSIS,
    image_manifest,
    make_study,
    save,
)

N_IMAGES = 2 * PART + 7


class KilledError(Exception):
    """The program ended here."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write rows that share an entry in parts too, though they are few."""
    for module in ("assignments", "imports", "study"):
        monkeypatch.setattr(f"glomerulab.apps.annotation.store.{module}.PART_ROWS", 40)


@contextmanager
def before_write(store: Store, number: int, do: Callable[[], object]) -> Iterator[None]:
    """Do something before the nth transaction that writes, counted from 1."""
    writing, n_writes = store.writing, 0

    def counted():
        nonlocal n_writes
        n_writes += 1
        if n_writes == number:
            patch.undo()
            do()
        return writing()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "writing", counted)
        yield
        assert n_writes == number


def kill() -> None:
    raise KilledError


def _labelled(labels: dict[str, int]) -> Manifest:
    rows = image_manifest(N_IMAGES).table[["image_id", "image_path"]]
    table = pd.DataFrame(rows).assign(**labels)
    return manifest_from_rows(
        table, folder=image_manifest(1).folder, taxonomy=image_manifest(1).taxonomy
    )


def test_an_import_of_labels_is_continued_and_doubles_nothing(store: Store) -> None:
    make_study(store, n_images=N_IMAGES)
    with pytest.raises(KilledError), before_write(store, 2, kill):
        import_labels(store, _labelled(NORMAL), login="anna", by=OWNER)
    done = import_labels(store, _labelled(CRESCENT), login="anna", by=OWNER)
    assert (done.n_imported, done.n_already_read) == (N_IMAGES - PART, PART)
    assert len(list_annotations(store, by=OWNER, every_version=True)) == N_IMAGES
    assert verify_store(store).problems == ()


def test_a_reading_saved_while_labels_are_imported_stays(store: Store) -> None:
    make_study(store, n_images=N_IMAGES)
    last = f"g{N_IMAGES - 1:03d}"
    with before_write(store, 2, lambda: save(store, "anna", last, SCLEROSIS)):
        done = import_labels(store, _labelled(NORMAL), login="anna", by=OWNER)
    assert (done.n_imported, done.n_already_read) == (N_IMAGES - 1, 1)
    [kept] = [one for one in list_annotations(store, by=OWNER) if one.image_id == last]
    assert kept.content.labels == SCLEROSIS


def test_images_are_handed_out_once_though_the_work_was_killed(
    store: Store, small_parts: None
) -> None:
    make_study(store, n_images=N_IMAGES, annotators=("anna", "bo", "cy"), distributed=False)
    with pytest.raises(KilledError), before_write(store, 3, kill):
        distribute(store, by=OWNER)
    distribute(store, by=OWNER)
    assert distribute(store, by=OWNER).n_assignments == 0
    queues = [[one.image_id for one in list_items(store, login)] for login in ("anna", "bo", "cy")]
    assert sum(map(len, queues)) == 2 * N_IMAGES
    assert all(len(queue) == len(set(queue)) for queue in queues)
    assert max(map(len, queues)) - min(map(len, queues)) <= 1
    assert verify_store(store).problems == ()


def test_two_owners_who_hand_out_at_once_give_nothing_twice(
    store: Store, small_parts: None
) -> None:
    make_study(store, n_images=N_IMAGES, annotators=("anna", "bo", "cy"), distributed=False)
    with (
        pytest.raises(AnnotationError, match="someone else"),
        before_write(store, 2, lambda: distribute(store, by=OWNER)),
    ):
        distribute(store, by=OWNER)
    assert sum(len(list_items(store, login)) for login in ("anna", "bo", "cy")) == 2 * N_IMAGES


def test_adding_images_is_continued_and_adds_none_twice(store: Store, small_parts: None) -> None:
    make_study(store, n_images=3)
    images = images_from_manifest(image_manifest(N_IMAGES))
    with pytest.raises(KilledError), before_write(store, 2, kill):
        add_images(store, images, by=OWNER)
    assert add_images(store, images, by=OWNER) == N_IMAGES - 3 - 40
    assert verify_store(store).problems == ()


def _calls(n_images: int, cgn: float) -> pd.DataFrame:
    others = (1 - cgn) / 3
    table = pd.DataFrame(image_manifest(n_images).table[["image_id"]])
    return table.assign(
        probability_normal=others,
        probability_mspgn=others,
        probability_fsg=others,
        probability_cgn=cgn,
    )


def _shown(store: Store) -> set[float]:
    """Return the probability of a crescent on the first and the last image."""
    return {item_at(store, "anna", n).model["cgn"] for n in (1, N_IMAGES)}


def _n_calls(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM model_call").scalar_one())


@pytest.mark.parametrize("number", [1, 2, 5, 12, 13, 14, 20])
def test_readers_see_one_model_whenever_an_import_is_killed(
    store: Store, small_parts: None, number: int
) -> None:
    make_study(store, n_images=N_IMAGES, show_model=True)
    import_model_calls(store, _calls(N_IMAGES, 0.25), source="run-1", by=OWNER)
    with pytest.raises(KilledError), before_write(store, number, kill):
        import_model_calls(store, _calls(N_IMAGES, 0.5), source="run-2", by=OWNER)
    assert _shown(store) == ({0.25} if number <= 12 else {0.5})
    assert verify_store(store).problems == ()
    import_model_calls(store, _calls(N_IMAGES, 0.5), source="run-2", by=OWNER)
    assert _shown(store) == {0.5}
    assert verify_store(store).problems == ()
    assert _n_calls(store) == 4 * N_IMAGES


def test_a_killed_import_of_model_calls_is_continued(store: Store, small_parts: None) -> None:
    make_study(store, n_images=N_IMAGES, show_model=True)
    with pytest.raises(KilledError), before_write(store, 11, kill):
        import_model_calls(store, _calls(N_IMAGES, 0.5), source="run", by=OWNER)
    assert item_at(store, "anna", 1).model is None
    with before_write(store, 2, lambda: None):  # the last part, then the entry of the ledger
        import_model_calls(store, _calls(N_IMAGES, 0.5), source="run", by=OWNER)
    assert _shown(store) == {0.5}


def test_of_two_imports_at_once_one_is_refused(store: Store, small_parts: None) -> None:
    make_study(store, n_images=N_IMAGES, show_model=True)

    def other() -> None:
        import_model_calls(store, _calls(N_IMAGES, 0.25), source="run-2", by=OWNER)

    with pytest.raises(AnnotationError, match="someone else"), before_write(store, 3, other):
        import_model_calls(store, _calls(N_IMAGES, 0.5), source="run-1", by=OWNER)
    assert _shown(store) == {0.25}
    assert verify_store(store).problems == ()


def test_images_changed_while_a_rule_settles_the_others_stay_open(store: Store) -> None:
    readers = ("anna", "bo", "cy")
    make_study(store, n_images=N_IMAGES, annotators=readers, n_readers=3)
    for login, labels in zip(readers, (NORMAL, CRESCENT, CRESCENT), strict=True):
        import_labels(store, _labelled(labels), login=login, by=OWNER)
    read, settled = f"g{N_IMAGES - 1:03d}", f"g{N_IMAGES - 2:03d}"

    def change() -> None:
        save(store, "anna", read, SCLEROSIS)
        adjudicate(store, settled, NORMAL, by=OWNER, expected_version=0, save_key=str(uuid4()))

    with before_write(store, 2, change):
        done = adjudicate_all(store, "majority", by=OWNER)
    assert (done.n_resolved, set(done.unresolved)) == (N_IMAGES - 2, {read, settled})
    assert [one.image.image_id for one in list_disagreements(store, by=OWNER)] == [read]
    assert verify_store(store).problems == ()
