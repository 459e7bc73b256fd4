import re
import uuid

import pytest

from glomerulab.apps.annotation.store.adjudications import adjudication_history
from glomerulab.apps.annotation.store.annotations import list_items
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, add_account, save


@pytest.fixture
def owner(web):
    """Let the readers differ on glom_001 and glom_002, and agree on glom_000."""
    for image_id, anna, bo in (
        ("glom_000", NORMAL, NORMAL),
        ("glom_001", CRESCENT, SCLEROSIS),
        ("glom_002", NORMAL, CRESCENT),
    ):
        save(web.store, "anna", image_id, anna)
        save(web.store, "bo", image_id, bo)
    return web.client("owner")


def _settle(owner, image="glom_001", **changes):
    form = {
        "image": image,
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
        "label": ["cgn", "fsg"],
    }
    return owner.write("/study/disagreement", data=form | changes)


def test_the_list_holds_the_images_on_which_readers_differ(owner):
    page = owner.get("/study/disagreements").text
    assert re.findall(r">(glom_\d+)</a>", page) == ["glom_001", "glom_002"]


def test_settling_leads_to_the_next_and_keeps_every_version(web, owner):
    answer = _settle(owner, note="both seen together")
    assert answer.headers["HX-Redirect"] == "/study/disagreement?image=glom_002"
    assert "glom_001</a>" not in owner.get("/study/disagreements").text
    assert _settle(owner, expected_version=1, label=["cgn"]).status_code == 204
    history = adjudication_history(web.store, "glom_001", by="owner")
    assert [sorted(k for k, v in one.labels.items() if v == 1) for one in history] == [
        ["cgn", "fsg"],
        ["cgn"],
    ]
    assert "both seen together" in owner.get("/study/disagreement?image=glom_001").text
    assert "glom_001</a>" in owner.get("/study/disagreements?settled=true").text


def test_two_owners_windows_do_not_overwrite_each_other(owner):
    assert _settle(owner).status_code == 204
    assert _settle(owner, label=["normal"]).status_code == 409


def test_the_same_settlement_twice_is_one(web, owner):
    key = str(uuid.uuid4())
    for _ in range(2):
        assert _settle(owner, save_key=key).status_code == 204
    assert len(adjudication_history(web.store, "glom_001", by="owner")) == 1


def test_what_excludes_each_other_is_not_settled(owner):
    assert _settle(owner, label=["normal", "cgn"]).status_code == 422


def test_a_third_reader_decides_by_rule(web, owner):
    add_account(web.store, "carla")
    assert "2 images" in owner.write("/study/third-reader", data={"login": "carla"}).text
    for item in list_items(web.store, "carla"):
        save(web.store, "carla", item.image_id, CRESCENT)
    assert (
        "2 images settled; 0" in owner.write("/study/settle", data={"method": "third_reader"}).text
    )
    assert "0 images settled; 0" in owner.write("/study/settle", data={"method": "majority"}).text


def test_two_readers_have_no_majority(owner):
    assert "0 images settled; 2" in owner.write("/study/settle", data={"method": "majority"}).text


def test_the_owner_sees_any_image_and_an_annotator_none_of_these_pages(web, owner):
    answer = owner.get("/study/image?image=glom_002")
    assert answer.content == (web.folder / "images" / "glom_002.png").read_bytes()
    assert owner.get("/study/image?image=../../etc/passwd").status_code == 404
    for path in (
        "/study/disagreements",
        "/study/disagreement?image=glom_001",
        "/study/image?image=glom_001",
    ):
        assert web.client("anna").get(path).status_code == 403
