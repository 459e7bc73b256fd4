from uuid import uuid4

import pytest

from glomerulab.apps.annotation.consensus import final_labels, incomplete_reasons
from glomerulab.apps.annotation.records import Adjudication, AdjudicationSummary, SaveConflictError
from glomerulab.apps.annotation.store.adjudications import (
    adjudicate,
    adjudicate_all,
    adjudication_history,
    count_by_rule,
    find_image_readings,
    list_disagreements,
    list_image_readings,
    list_incomplete,
)
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.assignments import (
    assign_further_reader,
    assign_third_reader,
    distribute,
)
from glomerulab.apps.annotation.store.database import Store
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from glomerulab.taxonomy import load_taxonomy
from tests.support.annotation_studies import (
    CRESCENT,
    NORMAL,
    OWNER,
    SCLEROSIS,
    add_account,
    make_study,
    save,
)

THREE = ("anna", "bo", "chen")


def _adjudicate(
    store: Store, image_id: str, labels: dict[str, int | None] | None, version: int = 0
) -> Adjudication:
    return adjudicate(
        store,
        image_id,
        labels,
        by=OWNER,
        expected_version=version,
        save_key=str(uuid4()),
        note="looked at together",
    )


def _differ(store: Store) -> None:
    for image_id, labels in (("g000", NORMAL), ("g001", CRESCENT), ("g002", CRESCENT)):
        save(store, "anna", image_id, labels)
    for image_id, labels in (("g000", NORMAL), ("g001", SCLEROSIS), ("g002", NORMAL)):
        save(store, "bo", image_id, labels)


def test_disagreements_list_the_readings_of_each_annotator(store: Store) -> None:
    make_study(store)
    _differ(store)
    queue = list_disagreements(store, by=OWNER)
    assert [(one.image.image_id, one.labels) for one in queue] == [
        ("g001", ("fsg", "cgn")),
        ("g002", ("normal", "cgn")),
    ]
    assert [reading.login for reading in queue[0].readings] == ["anna", "bo"]
    with pytest.raises(NotAllowedError):
        list_disagreements(store, by="anna")


def test_a_consensus_removes_the_image_from_the_queue_and_keeps_its_history(store: Store) -> None:
    make_study(store)
    _differ(store)
    first = _adjudicate(store, "g001", CRESCENT)
    assert (first.method, first.note, first.login) == ("consensus", "looked at together", OWNER)
    assert [one.image.image_id for one in list_disagreements(store, by=OWNER)] == ["g002"]
    second = _adjudicate(store, "g001", SCLEROSIS, version=1)
    assert adjudication_history(store, "g001", by=OWNER) == [first, second]
    assert find_image_readings(store, "g001", by=OWNER).adjudication == second
    assert len(find_image_readings(store, "g001", by=OWNER).readings) == 2


def test_a_settled_image_returns_when_a_reader_changes_their_mind(store: Store) -> None:
    make_study(store)
    _differ(store)
    _adjudicate(store, "g001", CRESCENT)
    save(store, "anna", "g001", NORMAL)
    [stale] = [one for one in list_disagreements(store, by=OWNER) if one.adjudication]
    assert (stale.image.image_id, stale.stale) == ("g001", True)


def test_a_settled_image_returns_even_if_its_readers_agree_now_and_can_be_settled_again(
    store: Store,
) -> None:
    make_study(store)
    _differ(store)
    _adjudicate(store, "g001", SCLEROSIS)
    readings = find_image_readings(store, "g001", by=OWNER).readings
    for reading in readings:
        save(store, reading.login, "g001", CRESCENT)
    [stale] = [one for one in list_disagreements(store, by=OWNER) if one.stale]
    assert (stale.image.image_id, stale.labels) == ("g001", ())
    adjudicate_all(store, "majority", by=OWNER)
    settled = find_image_readings(store, "g001", by=OWNER)
    assert (dict(settled.adjudication.labels), settled.stale) == (CRESCENT, False)


def test_two_owners_do_not_overwrite_each_other(store: Store) -> None:
    make_study(store)
    _differ(store)
    first = _adjudicate(store, "g001", CRESCENT)
    with pytest.raises(SaveConflictError) as caught:
        _adjudicate(store, "g001", SCLEROSIS)
    assert caught.value.current == first


def test_a_consensus_sent_again_is_stored_once(store: Store) -> None:
    make_study(store)
    key = str(uuid4())
    call = {"by": OWNER, "expected_version": 0, "save_key": key}
    assert adjudicate(store, "g001", CRESCENT, **call) == adjudicate(
        store, "g001", CRESCENT, **call
    )
    assert len(adjudication_history(store, "g001", by=OWNER)) == 1


def test_only_complete_images_are_settled_and_only_by_an_owner(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="exclude each other"):
        _adjudicate(store, "g001", {"normal": 1, "cgn": 1})
    with pytest.raises(UnknownRecordError):
        _adjudicate(store, "g999", CRESCENT)
    with pytest.raises(NotAllowedError):
        adjudicate(store, "g001", CRESCENT, by="anna", expected_version=0, save_key="x" * 8)


def test_a_majority_settles_clear_images_and_leaves_ties(store: Store) -> None:
    make_study(store, annotators=THREE, n_readers=3)
    for login, first, second in zip(
        THREE, (CRESCENT, CRESCENT, NORMAL), (CRESCENT, SCLEROSIS, {"mspgn": 1}), strict=True
    ):
        save(store, login, "g000", first)
        save(store, login, "g001", second)
    assert adjudicate_all(store, "majority", by=OWNER) == AdjudicationSummary(1, ("g001",))
    assert find_image_readings(store, "g000", by=OWNER).adjudication.labels == CRESCENT
    assert adjudicate_all(store, "majority", by=OWNER) == AdjudicationSummary(0, ("g001",))


def test_a_third_reader_settles_blindly_by_reading(store: Store) -> None:
    make_study(store)
    _differ(store)
    add_account(store, "chen")
    assign_third_reader(store, ["g001", "g002"], login="chen", by=OWNER)
    save(store, "chen", "g001", SCLEROSIS)
    assert adjudicate_all(store, "third_reader", by=OWNER) == AdjudicationSummary(1, ("g002",))
    settled = find_image_readings(store, "g001", by=OWNER).adjudication
    assert (settled.labels, settled.method) == (SCLEROSIS, "third_reader")
    assert len(settled.readings) == 3
    with pytest.raises(ValueError, match="majority or third_reader"):
        adjudicate_all(store, "consensus", by=OWNER)


def test_labels_that_readers_left_unknown_are_listed_and_no_rule_settles_them(store: Store) -> None:
    make_study(store, n_images=2)
    for login in ("anna", "bo"):
        save(store, login, "g000", {"cgn": 1})
        save(store, login, "g001", CRESCENT)
    (partial,) = list_disagreements(store, by=OWNER)
    assert (partial.image.image_id, partial.labels) == ("g000", ())
    assert adjudicate_all(store, "majority", by=OWNER) == AdjudicationSummary(0, ("g000",))
    _adjudicate(store, "g000", CRESCENT)
    assert list_disagreements(store, by=OWNER) == []


def test_images_and_their_readings_are_in_the_order_of_the_manifest(store: Store) -> None:
    make_study(store, n_images=4)
    _differ(store)
    images = list_image_readings(store, by=OWNER)
    assert [one.image.image_id for one in images] == ["g000", "g001", "g002", "g003"]
    assert [len(one.readings) for one in images] == [2, 2, 2, 0]
    assert images[0].image_path == "crops/g000.png"


def test_an_image_that_a_reader_skipped_is_listed_until_it_is_settled_or_read(
    store: Store,
) -> None:
    make_study(store, n_images=4)
    for image_id in ("g000", "g001"):
        save(store, "anna", image_id, skip_reason="out of focus: all of it")
        save(store, "bo", image_id, CRESCENT)
    save(store, "anna", "g002", CRESCENT)
    assert list_disagreements(store, by=OWNER) == []
    found = {one.image.image_id: one for one in list_incomplete(store, by=OWNER)}
    assert {name: len(one.skips) for name, one in found.items()} == {
        "g000": 1,
        "g001": 1,
        "g002": 0,
        "g003": 0,
    }
    assert found["g000"].waiting == ()
    assert found["g002"].waiting == ("bo",)
    assert found["g003"].waiting == ("anna", "bo")
    reasons = {name: incomplete_reasons(one, n_readers=2) for name, one in found.items()}
    assert reasons["g000"] == ["anna skipped it: out of focus: all of it"]
    assert reasons["g002"] == ["bo has not read it yet"]
    _adjudicate(store, "g000", CRESCENT)
    add_account(store, "chen")
    assert assign_further_reader(store, ["g001"], login="chen", by=OWNER) == 1
    assert {one.image.image_id for one in list_incomplete(store, by=OWNER)} == {
        "g001",
        "g002",
        "g003",
    }
    save(store, "chen", "g001", CRESCENT)
    assert {one.image.image_id for one in list_incomplete(store, by=OWNER)} == {"g002", "g003"}
    found = find_image_readings(store, "g001", by=OWNER)
    assert final_labels(found, load_taxonomy("paper"), n_readers=2) == (CRESCENT, "agreed")


def test_images_that_nobody_is_going_to_read_say_so(store: Store) -> None:
    make_study(store, n_images=2, distributed=False)
    reasons = [incomplete_reasons(one, n_readers=2) for one in list_incomplete(store, by=OWNER)]
    assert reasons == [["2 of its readers are not assigned yet"]] * 2


def test_an_image_that_nobody_can_label_is_left_out_of_the_study(store: Store) -> None:
    make_study(store, n_images=2)
    for login in ("anna", "bo"):
        save(store, login, "g000", skip_reason="no glomerulus")
    left_out = _adjudicate(store, "g000", None)
    assert (left_out.method, set(left_out.labels.values())) == ("excluded", {None})
    found = find_image_readings(store, "g000", by=OWNER)
    assert final_labels(found, load_taxonomy("paper"), n_readers=2)[1] == "excluded"
    assert [one.image.image_id for one in list_incomplete(store, by=OWNER)] == ["g001"]


def test_a_skipped_image_is_not_given_to_those_who_have_it(store: Store) -> None:
    make_study(store, n_images=2)
    save(store, "anna", "g000", skip_reason="cut off")
    assert assign_further_reader(store, ["g000", "g001"], login="anna", by=OWNER) == 0
    with pytest.raises(NotAllowedError):
        assign_further_reader(store, ["g000"], login="bo", by="anna")


def test_an_adjudicator_gets_every_disagreement_and_no_queue(store: Store) -> None:
    make_study(store, distributed=False)
    add_account(store, "chen", role="adjudicator")
    distribute(store, by=OWNER)
    _differ(store)
    assert list_items(store, "chen") == []
    assert [one.image.image_id for one in list_disagreements(store, by="chen")] == ["g001", "g002"]
    done = adjudicate(store, "g001", CRESCENT, by="chen", expected_version=0, save_key=str(uuid4()))
    assert done.login == "chen"
    assert [one.image.image_id for one in list_incomplete(store, by="chen")] == [
        "g003",
        "g004",
        "g005",
    ]
    with pytest.raises(NotAllowedError):
        list_image_readings(store, by="chen")


def test_a_rule_counts_only_what_it_would_settle(store: Store) -> None:
    make_study(store, annotators=THREE, n_readers=3)
    for login, labels in zip(THREE, (CRESCENT, CRESCENT, NORMAL), strict=True):
        save(store, login, "g000", labels)
    for login, labels in (("anna", CRESCENT), ("bo", NORMAL)):
        save(store, login, "g001", labels)
    assert count_by_rule(store, by=OWNER) == {"majority": 1, "third_reader": 0}
    adjudicate_all(store, "majority", by=OWNER)
    assert count_by_rule(store, by=OWNER) == {"majority": 0, "third_reader": 0}
