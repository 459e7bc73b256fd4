from dataclasses import replace
from uuid import uuid4

import pytest

from glomerulab.apps.annotation.records import SaveConflictError
from glomerulab.apps.annotation.store.database import PART, Store
from glomerulab.apps.annotation.store.ledger import latest_event, read_head, verify_store
from glomerulab.apps.annotation.store.regions import (
    RegionInput,
    known_regions,
    list_regions,
    save_region,
    save_regions,
)
from glomerulab.errors import AnnotationError, NotAllowedError
from glomerulab.geometry import Box
from tests.support.annotation_studies import OWNER, make_study

BOX = Box(100, 200, 300, 280)


def _drawn(
    region_id: str = "r1", slide_id: str = "S-1", box: Box = BOX, version: int = 0, **more: object
) -> RegionInput:
    key = more.pop("save_key", None) or str(uuid4())
    return RegionInput(region_id, slide_id, box, version, key, **more)


def test_a_region_comes_back_as_it_was_drawn(store: Store) -> None:
    make_study(store)
    saved = save_region(store, _drawn(labels=("Glomerulus",)), login="anna").region
    assert (saved.slide_id, saved.box, saved.labels) == ("S-1", BOX, ("Glomerulus",))
    assert (saved.outline, saved.login, saved.version) == (BOX.corners(), "anna", 1)
    assert list_regions(store, login="anna", slide_id="S-1") == [saved]
    assert list_regions(store, login="anna", slide_id="S-2") == []


def test_a_shape_from_a_file_keeps_its_outline(store: Store) -> None:
    make_study(store)
    triangle = ((100.0, 200.0), (400.0, 200.5), (250.0, 480.0))
    saved = save_region(store, _drawn(outline=triangle), login="anna").region
    assert saved.outline == triangle


def test_a_polygon_keeps_its_holes_and_one_without_is_stored_as_before(store: Store) -> None:
    make_study(store)
    ring, hole = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)), ((6.0, 1.0), (8.0, 1.0), (8.0, 3.0))
    given = _drawn(outline=ring, holes=(hole,), labels=("tubule",))
    saved = save_region(store, given, login="anna").region
    assert (saved.outline, saved.holes) == (ring, (hole,))
    assert saved.region().holes == (hole,)
    assert save_region(store, given, login="anna").already_saved
    filled = save_region(store, _drawn(outline=ring, version=1), login="anna").region
    assert filled.holes == ()
    with store.reading() as connection:
        assert "holes" not in latest_event(connection, "region", "r1").payload


def test_moving_and_deleting_are_new_versions_in_the_order_of_drawing(store: Store) -> None:
    make_study(store)
    save_region(store, _drawn("r1"), login="anna")
    second = save_region(store, _drawn("r2"), login="anna").region
    moved = save_region(store, _drawn("r1", box=Box(0, 0, 9, 9), version=1), login="anna").region
    assert list_regions(store, login="anna") == [moved, second]
    save_region(store, _drawn("r1", version=2, deleted=True), login="anna")
    assert list_regions(store, login="anna") == [second]


def test_a_region_that_is_sent_again_is_not_drawn_twice(store: Store) -> None:
    make_study(store)
    drawn = _drawn()
    first, again = (save_region(store, drawn, login="anna") for _ in range(2))
    assert (first.already_saved, again.already_saved) == (False, True)
    assert first.region == again.region


def test_a_change_of_an_outdated_version_is_a_conflict(store: Store) -> None:
    make_study(store)
    save_region(store, _drawn(), login="anna")
    moved = save_region(store, _drawn(box=Box(5, 5, 5, 5), version=1), login="anna").region
    with pytest.raises(SaveConflictError, match="version 2") as caught:
        save_region(store, _drawn(version=1, deleted=True), login="anna")
    assert caught.value.current == moved


def test_annotators_see_and_change_only_their_own(store: Store) -> None:
    make_study(store)
    save_region(store, _drawn("r1"), login="anna")
    save_region(store, _drawn("r2"), login="bo")
    assert [r.region_id for r in list_regions(store, login="anna")] == ["r1"]
    assert [r.region_id for r in list_regions(store, login=OWNER)] == ["r1", "r2"]
    with pytest.raises(NotAllowedError, match="r1"):
        save_region(store, _drawn("r1", version=1, deleted=True), login="bo")
    moved = save_region(store, _drawn("r1", version=1, box=Box(1, 1, 1, 1)), login=OWNER).region
    assert moved.login == "anna"


def test_a_region_stays_on_its_slide(store: Store) -> None:
    make_study(store)
    save_region(store, _drawn(), login="anna")
    with pytest.raises(AnnotationError, match="'r1' is on slide 'S-1'"):
        save_region(store, _drawn(slide_id="S-2", version=1), login="anna")


@pytest.mark.parametrize("bad", ["", "a/b", "..\\x", "a\nb", "x" * 121])
def test_an_id_that_could_name_a_path_is_rejected(store: Store, bad: str) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="slash"):
        save_region(store, _drawn(bad), login="anna")


def test_several_regions_are_saved_together_or_not_at_all(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError):
        save_regions(store, [_drawn("r1"), _drawn("a/b")], login="anna")
    assert list_regions(store, login="anna") == []


MANY = [_drawn(f"r{number}", box=Box(10 * number, 0, 9, 9)) for number in range(3 * PART)]


def _stopped(store: Store, regions: list[RegionInput], n_saved: int) -> None:
    """Save regions, and stop after some of them, as if the program were killed."""

    class KilledError(Exception):
        """The program ended here."""

    def killed(items, _description, _total=None):
        for number, one in enumerate(items):
            if number == n_saved:
                raise KilledError
            yield one

    with pytest.raises(KilledError):
        save_regions(store, regions, login="anna", track=killed)


def _ids(store: Store) -> list[str]:
    return [one.region_id for one in list_regions(store, login=OWNER)]


def test_of_an_import_that_was_killed_nothing_is_there(store: Store) -> None:
    make_study(store)
    _stopped(store, MANY, 2 * PART)
    n_entries = read_head(store).sequence
    assert _ids(store) == []
    assert known_regions(store, [one.region_id for one in MANY]) == set()
    assert save_regions(store, MANY, login="anna") == len(MANY) - 2 * PART
    assert read_head(store).sequence == n_entries + len(MANY) - 2 * PART + 1
    assert _ids(store) == [one.region_id for one in MANY]
    assert save_regions(store, MANY, login="anna") == 0
    assert _ids(store) == [one.region_id for one in MANY]
    assert verify_store(store).problems == ()


@pytest.mark.parametrize("n_more", [0, 5, PART, 2 * PART])
def test_a_killed_import_is_continued_by_one_of_other_regions(store: Store, n_more: int) -> None:
    make_study(store)
    _stopped(store, MANY, 2 * PART)
    second = [*MANY[PART + 3 : PART + 3 + n_more], _drawn("new")]
    if n_more == 2 * PART:
        _stopped(store, second, PART)
        assert _ids(store) == []
    save_regions(store, second, login="anna")
    assert sorted(_ids(store)) == sorted(one.region_id for one in second)
    save_regions(store, MANY, login="anna")
    assert sorted(_ids(store)) == sorted({one.region_id for one in [*MANY, *second]})


def test_imported_regions_can_be_changed_as_drawn_ones(store: Store) -> None:
    make_study(store)
    save_regions(store, MANY, login="anna")
    gone = replace(MANY[7], save_key=str(uuid4()), deleted=True, expected_version=1)
    save_region(store, gone, login="anna")
    assert _ids(store) == [one.region_id for one in MANY if one is not MANY[7]]
    assert save_regions(store, MANY, login="anna") == 0
    assert len(_ids(store)) == len(MANY) - 1


def test_others_save_while_many_regions_are_saved(store: Store) -> None:
    make_study(store)
    found: list[int] = []

    def between(items, _description, _total=None):
        for number, one in enumerate(items):
            if number % PART == 0:
                save_region(store, _drawn(f"own{number}"), login="bo")
                found.append(len(_ids(store)))
            yield one

    save_regions(store, MANY, login="anna", track=between)
    assert found[:2] == [1, 2]
    assert len(_ids(store)) == len(MANY) + len(found)
