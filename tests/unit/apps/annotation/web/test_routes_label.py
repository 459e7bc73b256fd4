import json
import uuid
from hashlib import sha256

import pytest
from PIL import Image

from glomerulab.apps.annotation.store.annotations import find_item, history, list_items
from tests.support.annotation_web import open_web


def test_an_item_and_its_image_are_given_to_its_annotator_alone(web):
    anna, bo = web.client("anna"), web.client("bo")
    item = anna.get("/api/items/1").json()
    image = anna.get(item["image_url"])
    path = find_item(web.store, "anna", item["assignment_id"]).image.image_path
    assert image.content == path.read_bytes()
    assert image.headers["content-type"] == "image/png"
    assert bo.get(item["image_url"]).status_code == 403
    assert bo.save(item).status_code == 403


def test_a_save_is_kept_with_all_that_was_said(web):
    anna = web.client("anna")
    item = anna.get("/api/items/2").json()
    labels = {"normal": 0, "mspgn": 1, "fsg": 1, "cgn": 0}
    answer = anna.save(item, labels=labels, unsure=True, note="两处", seconds=12.5)
    assert answer.json()["was_there"] is False
    (kept,) = history(web.store, "anna", item["assignment_id"])
    assert dict(kept.judgement.labels) == labels
    assert (kept.judgement.unsure, kept.judgement.note, kept.seconds) == (True, "两处", 12.5)
    assert kept.image_sha256 == sha256(anna.get(item["image_url"]).content).hexdigest()
    assert anna.get("/api/items/2").json()["saved"]["labels"] == labels


def test_neither_address_nor_answer_tells_that_an_image_is_a_repeat(tmp_path):
    web = open_web(tmp_path, n_images=4, repeat_share=0.5)
    anna = web.client("anna")
    places = {}
    for one in list_items(web.store, "anna"):
        places.setdefault(one.image_id, []).append(one.place)
    first, again = next(those for those in places.values() if len(those) == 2)
    shown = [anna.get(f"/api/items/{place}").json() for place in (first, again)]
    told = [
        {value for name, value in one.items() if name.startswith("image_") and value}
        for one in shown
    ]
    assert told[0].isdisjoint(told[1])
    for one in shown:
        assert "repeat" not in json.dumps(one)
        assert anna.save(one).status_code == 200
    kept = [history(web.store, "anna", one["assignment_id"])[0].image_sha256 for one in shown]
    assert kept == [sha256(anna.get(shown[0]["image_url"]).content).hexdigest()] * 2
    # What the cache keys on differs too, beyond the number of the item.
    assert len({one["image_url"].partition("?")[2] for one in shown}) == 2
    web.store.close()


def test_the_same_save_twice_is_saved_once(web):
    anna = web.client("anna")
    item = anna.get("/api/items/1").json()
    key = str(uuid.uuid4())
    first, second = (anna.save(item, save_key=key).json() for _ in range(2))
    assert (first["was_there"], second["was_there"]) == (False, True)
    assert len(history(web.store, "anna", item["assignment_id"])) == 1


def test_a_save_on_an_old_version_is_a_conflict_that_shows_what_is_there(web):
    one, other = web.client("anna"), web.client("anna")
    item = one.get("/api/items/1").json()
    assert one.save(item, labels={"cgn": 1}).status_code == 200
    answer = other.save(item, labels={"fsg": 1})
    assert answer.status_code == 409
    assert answer.json()["current"]["labels"]["cgn"] == 1
    assert len(history(web.store, "anna", item["assignment_id"])) == 1
    again = other.save(
        item, labels={"fsg": 1}, expected_version=answer.json()["current"]["version"]
    )
    assert again.status_code == 200
    assert [
        dict(v.judgement.labels)["fsg"] for v in history(web.store, "anna", item["assignment_id"])
    ] == [None, 1]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"labels": {"normal": 1, "cgn": 1}}, "exclude"),
        ({"labels": {"tumour": 1}}, "tumour"),
        ({"labels": {}}, "no label is set"),
        ({"labels": {"cgn": 1}, "skip_reason": "cut off"}, "skip"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_reason(web, said, why):
    anna = web.client("anna")
    answer = anna.save(anna.get("/api/items/1").json(), **said)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


def test_a_skip_needs_no_label(web):
    anna = web.client("anna")
    assert (
        anna.save(anna.get("/api/items/1").json(), labels={}, skip_reason="cut off").status_code
        == 200
    )
    assert anna.get("/api/items").json()[0] == {"place": 1, "state": "skipped"}


def test_an_image_that_is_gone_is_told_and_can_still_be_skipped(tmp_path):
    web = open_web(tmp_path)
    anna = web.client("anna")
    item = anna.get("/api/items/1").json()
    find_item(web.store, "anna", item["assignment_id"]).image.image_path.unlink()
    gone = anna.get("/api/items/1").json()
    assert gone["image_mark"] is None
    assert "No such file" in gone["image_error"]
    answer = anna.get(item["image_url"])
    assert answer.status_code == 422
    assert str(tmp_path) not in answer.text
    assert anna.save(item).status_code == 200  # what was seen before it went can be saved
    web.store.close()


def test_an_image_of_another_kind_is_shown_as_png(tmp_path):
    web = open_web(tmp_path)
    anna = web.client("anna")
    item = anna.get("/api/items/1").json()
    path = find_item(web.store, "anna", item["assignment_id"]).image.image_path
    Image.new("RGB", (30, 20), (1, 2, 3)).save(path, format="BMP")
    assert (
        anna.get(anna.get("/api/items/1").json()["image_url"]).headers["content-type"]
        == "image/png"
    )
    web.store.close()


def test_nobody_sees_what_another_said(web):
    anna, bo = web.client("anna"), web.client("bo")
    for place in range(1, 7):
        anna.save(anna.get(f"/api/items/{place}").json(), labels={"cgn": 1}, note="secret-note")
    for place in range(1, 7):
        item = bo.get(f"/api/items/{place}").json()
        assert (item["others"], item["model"], item["saved"], item["version"]) == (
            [],
            None,
            None,
            0,
        )
    assert "secret-note" not in bo.get("/label").text


def test_the_page_holds_the_queue_and_no_image_names(web):
    page = web.client("anna").get("/label").text
    assert "系膜细胞增生" in page
    assert "glom_" not in page
