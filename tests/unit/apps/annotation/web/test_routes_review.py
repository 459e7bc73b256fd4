import io
import re

import pytest
from PIL import Image

from glomerulab.apps.annotation.store.annotations import list_items
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, add_account, save

CONTENTS = (
    {"labels": NORMAL},
    {"labels": CRESCENT, "unsure": True},
    {"labels": CRESCENT, "note": "fibrous"},
    {"labels": SCLEROSIS},
    {"skip_reason": "cut off: at the edge"},
)


@pytest.fixture
def anna(web):
    """Anna, who labelled five of her six images, the first of them last."""
    for item, content in reversed(list(zip(list_items(web.store, "anna"), CONTENTS, strict=False))):
        save(web.store, "anna", item.image_id, **content)
    return web.client("anna")


@pytest.mark.parametrize(
    ("show", "places"),
    [
        ("all", [1, 2, 3, 4, 5]),
        ("label:cgn", [2, 3]),
        ("unsure", [2]),
        ("noted", [3]),
        ("skipped", [5]),
        ("none", []),
        ("label:unheard-of", []),
    ],
)
def test_a_filter_shows_the_own_items_that_are_like_it(anna, show, places):
    assert anna.get(f"/api/review?show={show}").json()["places"] == places
    page = anna.get(f"/review?show={show}").text
    assert [int(one) for one in re.findall(r"#place=(\d+)&", page)] == places


def test_the_tally_counts_what_was_entered(anna):
    tally = anna.get("/api/review").json()["tally"]
    assert {one["show"]: one["n"] for one in tally} == {
        "all": 5,
        "label:normal": 1,
        "label:mspgn": 0,
        "label:fsg": 1,
        "label:cgn": 2,
        "unsure": 1,
        "noted": 1,
        "skipped": 1,
    }
    page = anna.get("/review").text
    assert "1 images are still to be labelled" in page
    anna.cookies.set("glomerulab_language", "zh")
    assert "新月体形成" in anna.get("/review").text


def test_a_thumbnail_is_small_and_of_the_own_queue_alone(web, anna):
    item = list_items(web.store, "anna")[0]
    answer = anna.get(f"/items/{item.assignment_id}/thumbnail")
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 240
    assert web.client("bo").get(f"/items/{item.assignment_id}/thumbnail").status_code == 403


def test_a_page_without_labels_and_an_adjudicator_without_a_queue(web):
    assert "not labelled an image yet" in web.client("bo").get("/review").text
    add_account(web.store, "chen", role="adjudicator")
    assert web.client("chen").get("/review").headers["location"] == "/study/disagreements"
