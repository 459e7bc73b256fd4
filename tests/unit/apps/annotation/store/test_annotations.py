from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from glomerulab.apps.annotation.records import AnnotationContent, QueueItem, SaveConflictError
from glomerulab.apps.annotation.store.annotations import (
    image_of_item,
    item_at,
    latest_by_image,
    list_annotations,
    list_items,
    save_annotation,
    study_progress,
    without_skips,
)
from glomerulab.apps.annotation.store.database import Store
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from tests.support.annotation_studies import (
    CRESCENT,
    NORMAL,
    OWNER,
    find_item,
    history,
    make_study,
    next_item,
    save,
)


def test_the_queue_continues_with_open_items(store: Store) -> None:
    make_study(store, n_images=3)
    first, second, third = (item.image_id for item in list_items(store, "anna"))
    assert next_item(store, "anna").image.image_id == first
    save(store, "anna", first, NORMAL)
    save(store, "anna", second, skip_reason="out of focus")
    item = next_item(store, "anna")
    assert (item.image.image_id, item.position, item.n_items, item.version) == (third, 3, 3, 0)
    assert item.image.image_path == Path(f"/images/crops/{third}.png")
    save(store, "anna", third, CRESCENT)
    assert next_item(store, "anna") is None
    assert [item.state for item in list_items(store, "anna")] == ["done", "skipped", "done"]


def test_going_back_shows_what_was_saved(store: Store) -> None:
    make_study(store)
    item = next_item(store, "anna")
    saved = save(store, "anna", item.image.image_id, CRESCENT, unsure=True, note=" fibrous? ")
    back = item_at(store, "anna", 1)
    assert back.annotation == saved
    assert back.annotation.content == AnnotationContent(CRESCENT, unsure=True, note="fibrous?")
    assert back == find_item(store, "anna", item.assignment_id)


def test_a_change_is_a_new_version_and_the_old_one_stays(store: Store) -> None:
    make_study(store)
    save(store, "anna", "g002", NORMAL, seconds=1.0)
    save(store, "anna", "g002", CRESCENT, seconds=2.5)
    item = next(i for i in list_items(store, "anna") if i.image_id == "g002")
    versions = history(store, "anna", item.assignment_id)
    assert [v.version for v in versions] == [1, 2]
    assert [v.content.labels for v in versions] == [NORMAL, CRESCENT]
    assert [v.seconds for v in versions] == [1.0, 2.5]
    assert versions[0].saved_at <= versions[1].saved_at


def test_labels_that_were_not_given_stay_unknown(store: Store) -> None:
    make_study(store)
    saved = save(store, "anna", "g001", {"cgn": 1})
    assert saved.content.labels == {"normal": None, "mspgn": None, "fsg": None, "cgn": 1}


def test_a_save_that_is_sent_again_is_not_stored_twice(store: Store) -> None:
    make_study(store)
    item = next_item(store, "anna")
    call = {
        "login": "anna",
        "assignment_id": item.assignment_id,
        "content": AnnotationContent(NORMAL),
        "expected_version": 0,
        "save_key": str(uuid4()),
        "seconds": 1.0,
    }
    first = save_annotation(store, **call)
    again = save_annotation(store, **call)
    assert (first.already_saved, again.already_saved) == (False, True)
    assert again.annotation == first.annotation
    assert len(history(store, "anna", item.assignment_id)) == 1
    with pytest.raises(AnnotationError, match="another save"):
        save_annotation(store, **call | {"content": AnnotationContent(CRESCENT)})


def _save(
    store: Store, login: str, item: QueueItem, labels: dict[str, int | None], *, version: int = 0
) -> None:
    """Save labels of an item as of the version that the annotator saw."""
    save_annotation(
        store,
        login=login,
        assignment_id=item.assignment_id,
        content=AnnotationContent(labels),
        expected_version=version,
        save_key=str(uuid4()),
        seconds=1.0,
    )


def test_the_second_of_two_tabs_does_not_overwrite_the_first(store: Store) -> None:
    make_study(store)
    item = next_item(store, "anna")
    _save(store, "anna", item, NORMAL)
    with pytest.raises(SaveConflictError, match="saved since") as caught:
        _save(store, "anna", item, CRESCENT)
    assert caught.value.current.content.labels == NORMAL
    assert len(history(store, "anna", item.assignment_id)) == 1
    _save(store, "anna", item, CRESCENT, version=caught.value.current.version)
    assert find_item(store, "anna", item.assignment_id).annotation.content.labels == CRESCENT


def test_exactly_one_of_many_concurrent_saves_of_one_item_is_stored(store: Store) -> None:
    make_study(store)
    item = next_item(store, "anna")

    def one(_number: int) -> bool:
        try:
            _save(store, "anna", item, NORMAL)
        except SaveConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(16))) == 1
    assert len(history(store, "anna", item.assignment_id)) == 1


def test_annotators_have_no_access_to_the_queue_of_another(store: Store) -> None:
    make_study(store)
    item = next_item(store, "anna")
    with pytest.raises(NotAllowedError):
        image_of_item(store, "bo", item.assignment_id)
    with pytest.raises(NotAllowedError):
        _save(store, "bo", item, NORMAL)
    with pytest.raises(UnknownRecordError):
        image_of_item(store, "anna", 10_000)
    with pytest.raises(UnknownRecordError):
        item_at(store, "anna", 10_000)


def test_an_invalid_annotation_is_not_saved(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="exclude each other"):
        save(store, "anna", "g000", {"normal": 1, "cgn": 1})
    item = next(i for i in list_items(store, "anna") if i.image_id == "g000")
    assert history(store, "anna", item.assignment_id) == []
    assert study_progress(store, by=OWNER)[0].n_done == 0


def test_an_annotator_does_not_see_the_others_by_default(store: Store) -> None:
    make_study(store)
    save(store, "bo", "g003", CRESCENT)
    mine = next(i for i in list_items(store, "anna") if i.image_id == "g003")
    item = find_item(store, "anna", mine.assignment_id)
    assert (item.annotation, item.others, item.model) == (None, (), None)
    assert not save(store, "anna", "g003", NORMAL).others_shown


def test_an_unblinded_study_shows_the_others_and_records_it_in_each_save(store: Store) -> None:
    make_study(store, show_others=True)
    theirs = save(store, "bo", "g003", CRESCENT)
    mine = next(i for i in list_items(store, "anna") if i.image_id == "g003")
    assert find_item(store, "anna", mine.assignment_id).others == (theirs,)
    assert save(store, "anna", "g003", NORMAL).others_shown


def test_the_owner_reads_every_version_or_the_latest_of_each(store: Store) -> None:
    make_study(store)
    first = save(store, "anna", "g000", NORMAL)
    other = save(store, "bo", "g000", NORMAL)
    changed = save(store, "anna", "g000", CRESCENT)
    assert list_annotations(store, by=OWNER) == [other, changed]
    assert list_annotations(store, by=OWNER, every_version=True) == [first, other, changed]
    with pytest.raises(NotAllowedError):
        list_annotations(store, by="anna")


def test_skips_and_repeats_are_not_readings(store: Store) -> None:
    make_study(store, annotators=("anna",), n_readers=1, repeat_share=0.5)
    with store.reading() as connection:
        repeated = (
            connection.exec_driver_sql("SELECT image_id FROM assignment WHERE purpose = 'repeat'")
            .scalars()
            .all()
        )
    first = save(store, "anna", repeated[0], NORMAL)
    save(store, "anna", repeated[0], CRESCENT, which=1)
    save(store, "anna", repeated[1], skip_reason="torn")
    with store.reading() as connection:
        latest = latest_by_image(connection)
    assert {image_id: without_skips(found) for image_id, found in latest.items()} == {
        repeated[0]: (first,),
        repeated[1]: (),
    }


def test_progress_counts_items_and_the_time_spent_on_each(store: Store) -> None:
    make_study(store, n_images=5)
    save(store, "anna", "g000", NORMAL, seconds=2.0, unsure=True)
    save(store, "anna", "g001", NORMAL, seconds=3.0)
    save(store, "anna", "g001", CRESCENT, seconds=4.0, unsure=True)
    last = save(store, "anna", "g002", skip_reason="blurred", seconds=1.0)
    mine = study_progress(store, by=OWNER)[0]
    assert (mine.n_assigned, mine.n_done, mine.n_skipped, mine.n_open) == (5, 2, 1, 2)
    assert (mine.n_unsure, mine.seconds_total, mine.seconds_median) == (2, 10.0, 2.0)
    assert mine.last_saved_at == last.saved_at


def test_only_the_owner_sees_the_progress_of_everyone(store: Store) -> None:
    make_study(store)
    save(store, "bo", "g000", NORMAL)
    progress = study_progress(store, by=OWNER)
    assert [(p.login, p.n_done, p.seconds_median) for p in progress] == [
        ("anna", 0, None),
        ("bo", 1, 2.0),
    ]
    with pytest.raises(NotAllowedError):
        study_progress(store, by="anna")
