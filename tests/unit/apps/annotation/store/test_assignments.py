from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.apps.annotation.records import Distribution, NewImage
from glomerulab.apps.annotation.store.accounts import set_active
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.assignments import (
    assign_third_reader,
    choose_readers,
    distribute,
    order_queue,
)
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.study import add_images
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from tests.support.annotation_studies import NORMAL, OWNER, add_account, make_study, next_item, save

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
    assert next_item(store, "anna").position == 2


def test_too_few_annotators_are_an_error_that_counts_them(store: Store) -> None:
    make_study(store, annotators=("anna",), distributed=False)
    with pytest.raises(AnnotationError, match="needs 2 annotators, there are 1"):
        distribute(store, by=OWNER)
    assert list_items(store, "anna") == []
    add_account(store, "bo")
    distribute(store, by=OWNER)
    assert len(list_items(store, "bo")) == 6


def test_unread_items_of_a_deactivated_annotator_go_to_others(store: Store) -> None:
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


SEEDS = st.integers(-(2**40), 2**40)


@settings(max_examples=60)
@given(st.integers(0, 40), st.integers(1, 7), st.data(), SEEDS)
def test_each_image_has_k_of_n_readers_and_loads_differ_by_at_most_one(
    n_images: int, n_annotators: int, data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, n_annotators))
    logins = [f"a{number}" for number in range(n_annotators)]
    images = {f"g{number}": k for number in range(n_images)}
    dealt = choose_readers(images, dict.fromkeys(logins, 0), readers={}, seed=seed)
    readers = Counter(image_id for given_to in dealt.values() for image_id in given_to)
    assert readers == Counter(images)
    assert all(len(given_to) == len(set(given_to)) for given_to in dealt.values())
    loads = [len(dealt[login]) for login in logins]
    assert max(loads) - min(loads) <= 1


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), SEEDS)
def test_images_added_later_keep_the_balance(n_before: int, n_after: int, seed: int) -> None:
    loads = dict.fromkeys("abcd", 0)
    for batch, n_images in enumerate((n_before, n_after)):
        missing = {f"{batch}-{number}": 2 for number in range(n_images)}
        for login, images in choose_readers(missing, loads, readers={}, seed=seed).items():
            loads[login] += len(images)
    assert max(loads.values()) - min(loads.values()) <= 1


def test_an_image_is_never_given_to_someone_who_reads_it_already() -> None:
    dealt = choose_readers(
        {"g": 1}, {"a": 0, "b": 5, "c": 9}, readers={"g": frozenset({"a", "b"})}, seed=1
    )
    assert dealt == {"a": [], "b": [], "c": ["g"]}


def test_too_few_annotators_are_named_with_the_way_out() -> None:
    with pytest.raises(AnnotationError, match=r"'g' needs 3 annotators, there are 2"):
        choose_readers({"g": 2}, {"a": 0, "b": 0}, readers={"g": frozenset({"a"})}, seed=0)


@settings(max_examples=80)
@given(st.integers(0, 60), st.floats(0, 0.5), SEEDS, st.text(max_size=5))
def test_a_queue_holds_each_image_and_its_repeats_far_apart(
    n_images: int, share: float, seed: int, login: str
) -> None:
    images = [f"g{number}" for number in range(n_images)]
    queue = order_queue(images, repeat_share=share, seed=seed, login=login, batch=1)
    firsts = [reading.image_id for reading in queue if reading.purpose == "first"]
    repeats = [reading.image_id for reading in queue if reading.purpose == "repeat"]
    assert sorted(firsts) == sorted(images)
    assert len(repeats) == len(set(repeats))
    assert abs(len(repeats) - share * n_images) <= 0.5
    where = {(reading.image_id, reading.purpose): at for at, reading in enumerate(queue)}
    for image_id in repeats:
        gap = where[image_id, "repeat"] - where[image_id, "first"]
        assert gap >= max(1, (n_images - len(repeats)) // 2)


def test_the_order_is_of_the_seed_and_of_the_annotator_alone() -> None:
    def order(login: str, seed: int, batch: int = 1) -> list[str]:
        images = [f"g{number}" for number in range(30)]
        queue = order_queue(images, repeat_share=0.1, seed=seed, login=login, batch=batch)
        return [reading.image_id for reading in queue]

    assert order("anna", 1) == order("anna", 1)
    others = (order("bo", 1), order("anna", 2), order("anna", -1), order("anna", 1, batch=2))
    assert all(order("anna", 1) != other for other in others)


def test_every_image_is_as_likely_to_be_repeated_as_any_other() -> None:
    images = [f"g{number}" for number in range(10)]
    counts = Counter(
        reading.image_id
        for seed in range(400)
        for reading in order_queue(images, repeat_share=0.3, seed=seed, login="a", batch=1)
        if reading.purpose == "repeat"
    )
    # 120 expected each; the standard deviation of the count is 9.2.
    assert all(75 < counts[image_id] < 165 for image_id in images)
