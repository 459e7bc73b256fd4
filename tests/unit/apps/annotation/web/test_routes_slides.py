import io
import json
import uuid

import pytest
from PIL import Image

from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.runtime.names import hashed_name
from tests.support.annotation_web import open_web

KEY = hashed_name("slide")


@pytest.fixture
def slide_web(tmp_path, make_slide):
    web = open_web(tmp_path, slides=make_slide())
    yield web
    web.store.close()


def _body(**changes):
    return {
        "region_id": str(uuid.uuid4()),
        "x": 10,
        "y": 20,
        "width": 100,
        "height": 90,
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
    } | changes


def test_tiles_and_thumbnails_are_pictures_of_the_slide(slide_web):
    anna = slide_web.client("anna")
    for name in ("thumbnail.jpg", "tiles/8/0_0.jpg"):
        answer = anna.get(f"/slides/{KEY}/{name}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size[0] > 100
    assert anna.get(f"/slides/{KEY}/tiles/99/0_0.jpg").status_code == 404
    assert anna.get(f"/slides/{hashed_name('other')}/tiles/0/0_0.jpg").status_code == 404
    assert slide_web.client().get(f"/slides/{KEY}/tiles/8/0_0.jpg").status_code in {303, 401}


def test_the_page_of_a_slide_alone_may_compile(slide_web):
    anna = slide_web.client("anna")
    assert "unsafe-eval" in anna.get(f"/slides/{KEY}").headers["content-security-policy"]
    assert "unsafe" not in anna.get("/slides").headers["content-security-policy"]


def test_boxes_are_saved_once_and_seen_by_their_maker_and_the_owner(slide_web):
    anna, bo, owner = (slide_web.client(login) for login in ("anna", "bo", "owner"))
    body = _body()
    path = f"/api/slides/{KEY}/regions"
    first, second = (anna.write(path, json=body).json() for _ in range(2))
    assert (first["was_there"], second["was_there"]) == (False, True)
    assert [box["may_edit"] for box in anna.get(path).json()] == [True]
    assert [box["may_edit"] for box in owner.get(path).json()] == [False]
    assert bo.get(path).json() == []


def test_a_box_of_another_cannot_be_changed(slide_web):
    anna, bo = slide_web.client("anna"), slide_web.client("bo")
    path = f"/api/slides/{KEY}/regions"
    body = _body()
    version = anna.write(path, json=body).json()["saved"]["version"]
    theft = body | {"x": 0, "expected_version": version, "save_key": str(uuid.uuid4())}
    assert bo.write(path, json=theft).status_code in {403, 404, 409}
    assert anna.get(path).json()[0]["x"] == 10


def test_a_box_changed_in_two_windows_is_a_conflict(slide_web):
    anna = slide_web.client("anna")
    path = f"/api/slides/{KEY}/regions"
    body = _body()
    version = anna.write(path, json=body).json()["saved"]["version"]
    for x, status in ((30, 200), (40, 409)):
        change = body | {"x": x, "expected_version": version, "save_key": str(uuid.uuid4())}
        answer = anna.write(path, json=change)
        assert answer.status_code == status
    assert answer.json()["current"]["x"] == 30


def test_region_files_come_and_go_through_the_page(slide_web):
    anna, owner = slide_web.client("anna"), slide_web.client("owner")
    anna.write(f"/api/slides/{KEY}/regions", json=_body())
    file = anna.get(f"/slides/{KEY}/regions.geojson")
    assert len(json.loads(file.content)["features"]) == 1
    sent = {"file": ("../../evil.geojson", file.content, "application/geo+json")}
    answer = owner.write(f"/slides/{KEY}/import", files=sent)
    assert answer.headers["location"] == f"/slides/{KEY}?imported=1"
    assert owner.write(f"/slides/{KEY}/queue").headers["location"].endswith("queued=2")


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"[" * 100_000, b'{"type": "Feature"}', b"\xff\xfe"]
)
def test_a_file_that_is_no_region_file_is_told_so(slide_web, content):
    sent = {"file": ("a.geojson", content, "application/geo+json")}
    answer = slide_web.client("anna").write(f"/slides/{KEY}/import", files=sent)
    assert answer.status_code == 422
    assert "/tmp" not in answer.text


def test_only_the_owner_hands_out(slide_web):
    assert slide_web.client("anna").write(f"/slides/{KEY}/queue").status_code == 403


@pytest.mark.real
def test_a_slide_that_cannot_be_read_is_told_and_the_others_go_on(tmp_path, real_data):
    web = open_web(tmp_path, slides=real_data / "slides" / "openslide_unreadable.svs")
    key = hashed_name("openslide_unreadable")
    answer = web.client("anna").get(f"/slides/{key}/thumbnail.jpg")
    assert answer.status_code == 422
    assert str(real_data) not in answer.text
    assert web.client("anna").get("/slides").status_code == 200
    web.store.close()


def test_a_study_without_slides_says_so(web):
    assert "--slides" in web.client("owner").get("/slides").text
    assert SlideCache().entries() == []
