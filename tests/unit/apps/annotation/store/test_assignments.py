from collections import Counter

import pytest

from glomerulab.apps.annotation.records import Distribution
from glomerulab.apps.annotation.store.accounts import set_active
from glomerulab.apps.annotation.store.annotations import list_items, next_item
from glomerulab.apps.annotation.store.assignments import assign_third_reader, distribute
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import NewImage, add_images
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from tests.support.annotation_studies import NORMAL, OWNER, add_account, make_study, save

THREE = ("anna", "bo", "chen")


def _readers(store: Store, logins: tuple[str, ...] = THREE) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for login in logins:
        for item in list_items(store, login):
            readers.setdefault(item.image_id, []).append(login)
    return readers


def test_every_image_has_its_readers_and_the_work_is_balanced(store: Store) -> None:
    make_study(store, n_images=10, annotators=THREE, n_readers=2)
    readers = _readers(store)
    assert sorted(readers) == [f"g{number:03d}" for number in range(10)]
    assert all(len(logins) == len(set(logins)) == 2 for logins in readers.values())
    loads = Counter(login for logins in readers.values() for login in logins)
    assert sorted(loads.values()) == [6, 7, 7]


def test_a_share_of_the_images_comes_twice(store: Store) -> None:
    make_study(store, n_images=10, annotators=("anna", "bo"), repeat_share=0.2)
    for login in ("anna", "bo"):
        counts = Counter(item.image_id for item in list_items(store, login))
        assert sorted(counts.values()) == [1] * 8 + [2] * 2


def test_distributing_twice_gives_nothing_twice(store: Store) -> None:
    make_study(store, n_images=10, annotators=THREE)
    before = _readers(store)
    assert distribute(store, by=OWNER) == Distribution(0, 0, 0)
    assert _readers(store) == before


def test_images_added_later_extend_the_queues_and_move_nothing(store: Store) -> None:
    make_study(store, n_images=4, annotators=THREE)
    before = {login: list_items(store, login) for login in THREE}
    save(store, "anna", before["anna"][0].image_id, NORMAL)
    add_images(store, [NewImage(f"n{i}", f"n{i}.png") for i in range(5)], by=OWNER)
    assert distribute(store, by=OWNER).n_images == 5
    for login in THREE:
        now = list_items(store, login)
        assert [i.image_id for i in now[: len(before[login])]] == [
            i.image_id for i in before[login]
        ]
    assert sorted(Counter(len(logins) for logins in _readers(store).values())) == [2]
    assert next_item(store, "anna").place == 2


def test_too_few_annotators_are_an_error_that_counts_them(store: Store) -> None:
    make_study(store, annotators=("anna",), distributed=False)
    with pytest.raises(AnnotationError, match="needs 2 annotators, there are 1"):
        distribute(store, by=OWNER)
    assert list_items(store, "anna") == []
    add_account(store, "bo")
    distribute(store, by=OWNER)
    assert len(list_items(store, "bo")) == 6


def test_what_someone_who_left_has_not_read_goes_to_others(store: Store) -> None:
    make_study(store, n_images=6, annotators=("anna", "bo"))
    save(store, "bo", "g002", NORMAL)
    set_active(store, login="bo", active=False, by=OWNER)
    add_account(store, "chen")
    assert distribute(store, by=OWNER).n_images == 5
    assert {item.image_id for item in list_items(store, "chen")} == {
        f"g{number:03d}" for number in (0, 1, 3, 4, 5)
    }


def test_a_third_reader_is_someone_who_has_not_read_the_image(store: Store) -> None:
    make_study(store)
    add_account(store, "chen")
    with pytest.raises(AnnotationError, match="someone else"):
        assign_third_reader(store, ["g001"], login="anna", by=OWNER)
    with pytest.raises(UnknownRecordError):
        assign_third_reader(store, ["g999"], login="chen", by=OWNER)
    with pytest.raises(NotAllowedError):
        assign_third_reader(store, ["g001"], login="chen", by="anna")
    assert assign_third_reader(store, ["g001", "g002", "g001"], login="chen", by=OWNER) == 2
    assert assign_third_reader(store, ["g001", "g003"], login="chen", by=OWNER) == 1
    assert [i.image_id for i in list_items(store, "chen")] == ["g001", "g002", "g003"]
