import re
import uuid

import pytest

from glomerulab.apps.annotation.store.adjudications import adjudication_history
from glomerulab.apps.annotation.store.annotations import list_items
from tests.support.annotation_studies import (
    CRESCENT,
    NORMAL,
    SCLEROSIS,
    add_account,
    save,
)
from tests.support.annotation_web import open_web


def _listed(client, section: str, path: str = "/study/disagreements") -> list[str]:
    """Return the images that a section of the page lists."""
    page = client.get(path).text
    start = page.index(f'id="{section}"')
    return re.findall(r">(glom_\d+)</a>", page[start : page.index("</section>", start)])


@pytest.fixture
def with_disagreements(web):
    """Let the readers differ on glom_001 and glom_002, and agree on glom_000."""
    for image_id, anna, bo in (
        ("glom_000", NORMAL, NORMAL),
        ("glom_001", CRESCENT, SCLEROSIS),
        ("glom_002", NORMAL, CRESCENT),
    ):
        save(web.store, "anna", image_id, anna)
        save(web.store, "bo", image_id, bo)
    return web.client("owner")


def _adjudicate(with_disagreements, image="glom_001", **changes):
    form = {
        "image": image,
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
        "label": ["cgn", "fsg"],
    }
    return with_disagreements.write("/study/disagreement", data=form | changes)


def test_the_list_holds_the_images_on_which_readers_differ(with_disagreements):
    assert _listed(with_disagreements, "open") == ["glom_001", "glom_002"]


def test_adjudication_leads_to_the_next_image_and_keeps_every_version(web, with_disagreements):
    answer = _adjudicate(with_disagreements, note="both seen together")
    assert answer.headers["HX-Redirect"] == "/study/disagreement?image=glom_002"
    assert "glom_001</a>" not in with_disagreements.get("/study/disagreements").text
    assert _adjudicate(with_disagreements, expected_version=1, label=["cgn"]).status_code == 204
    history = adjudication_history(web.store, "glom_001", by="owner")
    assert [sorted(k for k, v in one.labels.items() if v == 1) for one in history] == [
        ["cgn", "fsg"],
        ["cgn"],
    ]
    assert "both seen together" in with_disagreements.get("/study/disagreement?image=glom_001").text
    assert "glom_001</a>" in with_disagreements.get("/study/disagreements?settled=true").text


def test_two_owners_windows_do_not_overwrite_each_other(with_disagreements):
    assert _adjudicate(with_disagreements).status_code == 204
    assert _adjudicate(with_disagreements, label=["normal"]).status_code == 409


def test_the_same_adjudication_twice_is_stored_once(web, with_disagreements):
    key = str(uuid.uuid4())
    for _ in range(2):
        assert _adjudicate(with_disagreements, save_key=key).status_code == 204
    assert len(adjudication_history(web.store, "glom_001", by="owner")) == 1


def test_labels_that_exclude_each_other_are_rejected(with_disagreements):
    assert _adjudicate(with_disagreements, label=["normal", "cgn"]).status_code == 422


def test_an_image_is_not_settled_without_a_decision(web, with_disagreements):
    undecided = _adjudicate(with_disagreements, label=[])
    assert undecided.status_code == 422
    assert "tick" in undecided.text
    assert _adjudicate(with_disagreements, none="true").status_code == 422  # and two labels
    assert _adjudicate(with_disagreements, label=[], none="true", exclude="true").status_code == 422
    assert adjudication_history(web.store, "glom_001", by="owner") == []
    assert _adjudicate(with_disagreements, label=[], none="true").status_code == 204
    (settled,) = adjudication_history(web.store, "glom_001", by="owner")
    assert set(settled.labels.values()) == {0}


def test_a_third_reader_decides_by_rule(web, with_disagreements):
    add_account(web.store, "carla")
    assert (
        "2 images" in with_disagreements.write("/study/third-reader", data={"login": "carla"}).text
    )
    for item in list_items(web.store, "carla"):
        save(web.store, "carla", item.image_id, CRESCENT)
    assert (
        "2 images settled; 0"
        in with_disagreements.write("/study/settle", data={"method": "third_reader"}).text
    )
    assert (
        "0 images settled; 0"
        in with_disagreements.write("/study/settle", data={"method": "majority"}).text
    )


def test_two_readers_have_no_majority(with_disagreements):
    assert (
        "0 images settled; 2"
        in with_disagreements.write("/study/settle", data={"method": "majority"}).text
    )


def test_the_owner_sees_any_image_and_an_annotator_none_of_these_pages(web, with_disagreements):
    answer = with_disagreements.get("/study/image?image=glom_002")
    assert answer.content == (web.folder / "images" / "glom_002.png").read_bytes()
    assert with_disagreements.get("/study/image?image=../../etc/passwd").status_code == 404
    for path in (
        "/study/disagreements",
        "/study/disagreement?image=glom_001",
        "/study/image?image=glom_001",
    ):
        assert web.client("anna").get(path).status_code == 403


@pytest.fixture
def with_skips(web):
    """Let Anna skip glom_000 and glom_001, which Bo labels; nobody has read the others."""
    for image_id in ("glom_000", "glom_001"):
        save(web.store, "anna", image_id, skip_reason="out of focus: all of it")
        save(web.store, "bo", image_id, CRESCENT)
    return web.client("owner")


def test_a_skipped_image_is_listed_with_its_reason(with_skips):
    page = with_skips.get("/study/disagreements").text
    assert _listed(with_skips, "open") == []
    assert "6 incomplete images" in page
    assert _listed(with_skips, "incomplete")[:2] == ["glom_000", "glom_001"]
    assert page.count("Anna skipped it: out of focus: all of it") == 2
    assert "Anna has not read it yet; Bo has not read it yet" in page
    one = with_skips.get("/study/disagreement?image=glom_000").text
    assert "out of focus: all of it" in one
    with_skips.cookies.set("glomerulab_language", "zh")
    assert "失焦: all of it" in with_skips.get("/study/disagreements").text


def test_skipped_images_go_to_another_reader(web, with_skips):
    answer = with_skips.write("/study/further-reader", data={"login": "bo"})
    assert "0 of 2 images" in answer.text
    add_account(web.store, "carla")
    answer = with_skips.write("/study/further-reader", data={"login": "carla"})
    assert "2 images handed to Carla" in answer.text
    assert [one.image_id for one in list_items(web.store, "carla")] == ["glom_000", "glom_001"]
    assert "Carla has not read it yet" in with_skips.get("/study/disagreements").text


def test_an_image_that_nobody_can_label_is_left_out_and_stays_in_a_list(web, with_skips):
    answer = _adjudicate(with_skips, "glom_000", label=[], exclude="true")
    assert answer.headers["HX-Redirect"] == "/study/disagreement?image=glom_001"
    (settled,) = adjudication_history(web.store, "glom_000", by="owner")
    assert settled.method == "excluded"
    settled_ones = "/study/disagreements?settled=true"
    assert _listed(with_skips, "open", settled_ones) == ["glom_000"]
    assert "left out" in with_skips.get(settled_ones).text
    assert "glom_000" not in _listed(with_skips, "incomplete")


def test_an_adjudicator_settles_and_sees_nothing_else_of_the_owner(web, with_disagreements):
    add_account(web.store, "chen", role="adjudicator")
    chen = web.client("chen")
    assert chen.get("/").headers["location"] == "/study/disagreements"
    assert _listed(chen, "open") == ["glom_001", "glom_002"]
    assert "Assign as third reader" not in chen.get("/study/disagreements").text
    assert chen.get("/study/image?image=glom_001").status_code == 200
    assert _adjudicate(chen, label=["cgn"]).status_code == 204
    assert adjudication_history(web.store, "glom_001", by="owner")[0].login == "chen"
    for path in ("/study", "/study/people", "/study/agreement", "/study/export"):
        assert chen.get(path).status_code == 403
    for path in ("/study/third-reader", "/study/further-reader", "/study/distribute"):
        assert chen.write(path, data={"login": "bo"}).status_code == 403


def test_an_adjudicator_without_a_queue_is_led_to_the_disagreements(web):
    add_account(web.store, "chen", role="adjudicator")
    answer = web.client("chen").get("/label")
    assert (answer.status_code, answer.headers["location"]) == (303, "/study/disagreements")


def test_a_rule_is_offered_only_where_it_settles_something(tmp_path):
    made = open_web(tmp_path, annotators=("anna", "bo", "carla"), n_readers=3)
    owner = made.client("owner")
    for login, labels in zip(("anna", "bo", "carla"), (CRESCENT, NORMAL, SCLEROSIS), strict=True):
        save(made.store, login, "glom_000", labels)
    assert "No image has a majority" in owner.get("/study/disagreements").text
    assert "/study/settle" not in owner.get("/study/disagreements").text
    for login, labels in zip(("anna", "bo", "carla"), (CRESCENT, CRESCENT, SCLEROSIS), strict=True):
        save(made.store, login, "glom_001", labels)
    assert "Settle 1 by majority" in owner.get("/study/disagreements").text
    made.store.close()
