import io
import json
import uuid
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from glomerulab.apps.annotation.region_crops import crop_regions
from glomerulab.apps.annotation.region_sync import export_boxes, import_boxes
from glomerulab.apps.annotation.store.annotations import item_at, list_items
from glomerulab.apps.annotation.store.regions import RegionInput, list_regions, save_region
from glomerulab.apps.annotation.web.routes_annotator import queue_boxes
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import AnnotationError, RegionError, SlideError
from glomerulab.geometry import Box
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.regions.features import SlideFrame
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.slides.slide import open_slide
from tests.support.annotation_studies import find_item, history
from tests.support.annotation_web import open_web, page_labels


def test_an_item_and_its_image_are_given_to_its_annotator_alone(web):
    anna, bo = web.client("anna"), web.client("bo")
    item = anna.get("/api/items/1").json()
    image = anna.get(item["image_url"])
    path = find_item(web.store, "anna", item["assignment_id"]).image.image_path
    assert image.content == path.read_bytes()
    assert image.headers["content-type"] == "image/png"
    assert bo.get(item["image_url"]).status_code == 403
    assert bo.save(item).status_code == 403


def test_a_save_stores_everything_that_was_entered(web):
    anna = web.client("anna")
    item = anna.get("/api/items/2").json()
    labels = {"normal": 0, "mspgn": 1, "fsg": 1, "cgn": 0}
    answer = anna.save(item, labels=labels, unsure=True, note="两处", seconds=12.5)
    assert answer.json()["was_there"] is False
    (kept,) = history(web.store, "anna", item["assignment_id"])
    assert dict(kept.content.labels) == labels
    assert (kept.content.unsure, kept.content.note, kept.seconds) == (True, "两处", 12.5)
    assert kept.image_sha256 == sha256(anna.get(item["image_url"]).content).hexdigest()
    assert anna.get("/api/items/2").json()["saved"]["labels"] == labels


def test_neither_address_nor_response_reveals_a_repeated_image(tmp_path):
    web = open_web(tmp_path, n_images=4, repeat_share=0.5)
    anna = web.client("anna")
    places = {}
    for one in list_items(web.store, "anna"):
        places.setdefault(one.image_id, []).append(one.position)
    first, again = next(those for those in places.values() if len(those) == 2)
    shown = [anna.get(f"/api/items/{place}").json() for place in (first, again)]
    image_fields = [
        {value for name, value in one.items() if name.startswith("image_") and value}
        for one in shown
    ]
    assert image_fields[0].isdisjoint(image_fields[1])
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


def test_a_save_on_an_old_version_is_a_conflict_with_the_saved_labels(web):
    one, other = web.client("anna"), web.client("anna")
    item = one.get("/api/items/1").json()
    assert one.save(item, labels=page_labels("cgn")).status_code == 200
    answer = other.save(item, labels=page_labels("fsg"))
    assert answer.status_code == 409
    assert answer.json()["current"]["labels"]["cgn"] == 1
    assert len(history(web.store, "anna", item["assignment_id"])) == 1
    again = other.save(
        item, labels=page_labels("fsg"), expected_version=answer.json()["current"]["version"]
    )
    assert again.status_code == 200
    assert [
        dict(v.content.labels)["fsg"] for v in history(web.store, "anna", item["assignment_id"])
    ] == [0, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": {"normal": 1, "cgn": 1}}, "exclude"),
        ({"labels": {"tumour": 1}}, "tumour"),
        ({"labels": page_labels()}, "no label is set"),
        ({"labels": {}}, "no label is set"),
        (
            {"labels": {"cgn": 1}},
            "Normal, Mesangial proliferation, Segmental sclerosis are missing",
        ),
        ({"labels": {}, "skip_reason": "cut off", "unsure": True}, "unsure"),
        ({"image_mark": "0" * 64}, "changed since"),
        ({"labels": {"cgn": 1}, "skip_reason": "cut off"}, "skip"),
    ],
)
def test_an_invalid_annotation_is_rejected_with_the_reason(web, change, reason):
    anna = web.client("anna")
    answer = anna.save(anna.get("/api/items/1").json(), **change)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


def test_a_skip_needs_no_label(web):
    anna = web.client("anna")
    assert (
        anna.save(anna.get("/api/items/1").json(), labels={}, skip_reason="cut off").status_code
        == 200
    )
    assert anna.get("/api/items").json()[0] == {"place": 1, "state": "skipped"}


def test_a_missing_image_is_reported_and_can_still_be_skipped(tmp_path):
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


def test_annotators_do_not_see_the_annotations_of_others(web):
    anna, bo = web.client("anna"), web.client("bo")
    for place in range(1, 7):
        anna.save(
            anna.get(f"/api/items/{place}").json(), labels=page_labels("cgn"), note="secret-note"
        )
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


TURNED = [[60.5, 0.0], [121.0, 60.5], [60.5, 121.0], [0.0, 60.5]]


def test_a_turned_box_comes_back_turned(slide_web):
    anna = slide_web.client("anna")
    path = f"/api/slides/{KEY}/regions"
    body = _body(outline=TURNED)
    saved = anna.write(path, json=body).json()["saved"]
    assert saved["outline"] == TURNED
    (drawn,) = anna.get(path).json()
    assert (drawn["outline"], drawn["width"], drawn["height"]) == (TURNED, 121, 121)
    assert list_regions(slide_web.store, login="anna")[0].outline == tuple(map(tuple, TURNED))
    assert anna.write(path, json=_body()).json()["saved"]["outline"] is None
    for outline in (TURNED[:2], [[0, "a"]] * 3, [[0, 1, 2]] * 3):
        assert anna.write(path, json=_body(outline=outline)).status_code == 422


def test_an_edited_outline_is_returned_and_not_saved(slide_web):
    anna = slide_web.client("anna")
    square = [[0, 0], [100, 0], [100, 100], [0, 100]]
    beside = [[x + 100, y] for x, y in square]
    loop = [[30, 30], [60, 30], [60, 60], [30, 60], [30, 31]]

    def edit(*outlines, **how):
        return anna.write("/api/shapes", json={"shapes": [{"outline": o} for o in outlines], **how})

    (part,) = edit(square, stroke=loop).json()["shapes"]
    assert len(part["holes"]) == 1
    (whole,) = edit(square, beside).json()["shapes"]
    assert whole["holes"] == []
    assert {x for x, _ in whole["outline"]} == {0, 200}
    refused = edit(square, stroke=[[300, 300], [310, 300]])
    assert refused.status_code == 422
    assert "nothing was cut" in refused.json()["detail"]
    wrong = [edit(), edit(square), edit(square, beside, stroke=loop)]
    for one in (*wrong, edit(square, stroke=[[1, 1]]), edit(square, stroke=[[1, 1]] * 501)):
        assert one.status_code == 422
    assert slide_web.client().post("/api/shapes", json={}).status_code in {401, 403}
    assert list_regions(slide_web.store, login="anna") == []


@pytest.mark.parametrize(
    "region_id",
    ["slide:p1", "slide:Annotation 2 \u4e2d", str(uuid.UUID(int=1)), f"{2:032x}"],
)
def test_a_region_that_a_command_imported_is_changed_on_the_page(slide_web, region_id):
    anna = slide_web.client("anna")
    path = f"/api/slides/{KEY}/regions"
    imported = RegionInput(region_id, "slide", Box(1, 2, 30, 40), 0, str(uuid.uuid4()))
    save_region(slide_web.store, imported, login="anna")
    (shown,) = anna.get(path).json()
    moved = anna.write(path, json=_body(region_id=shown["region_id"], expected_version=1))
    assert moved.status_code == 200
    (kept,) = list_regions(slide_web.store, login="anna")
    assert (kept.region_id, kept.box) == (region_id, Box(10, 20, 100, 90))


def test_a_new_region_has_a_uuid_of_its_page(slide_web):
    anna = slide_web.client("anna")
    path = f"/api/slides/{KEY}/regions"
    for wrong in ("slide:p9", "a/b", "a\0b", "", "x" * 200):
        assert anna.write(path, json=_body(region_id=wrong)).status_code in {400, 404, 422}
    new = str(uuid.uuid4())
    assert anna.write(path, json=_body(region_id=new)).status_code == 200
    (kept,) = list_regions(slide_web.store, login="anna")
    assert kept.region_id == new.replace("-", "")


def test_a_move_keeps_the_classes_of_a_region_file_and_a_deletion_can_be_undone(slide_web):
    anna = slide_web.client("anna")
    path = f"/api/slides/{KEY}/regions"
    region_id = uuid.uuid4().hex
    drawn = RegionInput(
        region_id, "slide", Box(1, 2, 30, 40), 0, str(uuid.uuid4()), labels=("Crescent",)
    )
    save_region(slide_web.store, drawn, login="anna")
    for version, deleted in ((1, False), (2, True), (3, False)):
        body = _body(region_id=region_id, expected_version=version, deleted=deleted)
        assert anna.write(path, json=body).status_code == 200
    (kept,) = list_regions(slide_web.store, login="anna")
    assert (kept.labels, kept.version, kept.box) == (("Crescent",), 4, Box(10, 20, 100, 90))


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"labels": [PROPOSAL_LABEL, "Crescent"]}, ("Crescent",)),  # a page sends all it knows
        ({}, ()),
        ({"labels": [PROPOSAL_LABEL], "proposed": True}, (PROPOSAL_LABEL,)),
    ],
)
def test_what_a_person_saves_is_no_proposal_unless_accepting_it_was_undone(slide_web, sent, kept):
    proposal = RegionInput(
        uuid.uuid4().hex, "slide", Box(1, 2, 30, 40), 0, str(uuid.uuid4()), labels=(PROPOSAL_LABEL,)
    )
    save_region(slide_web.store, proposal, login="anna")
    body = _body(region_id=proposal.region_id, expected_version=1, **sent)
    answer = slide_web.client("anna").write(f"/api/slides/{KEY}/regions", json=body)
    assert answer.json()["saved"]["labels"] == list(kept)
    assert answer.json()["saved"]["proposed"] == (PROPOSAL_LABEL in kept)


def test_a_box_that_was_cut_says_that_it_can_no_longer_be_changed(slide_web):
    anna, owner = slide_web.client("anna"), slide_web.client("owner")
    path = f"/api/slides/{KEY}/regions"
    anna.write(path, json=_body())
    assert [one["cut"] for one in anna.get(path).json()] == [False]
    owner.write(f"/slides/{KEY}/queue")
    assert [(one["cut"], one["may_edit"]) for one in anna.get(path).json()] == [(True, False)]


def test_the_page_knows_the_scales_of_slide_and_crops(slide_web):
    page = slide_web.client("owner").get(f"/slides/{KEY}").text
    assert '"slide_mpp": 0.5, "crop_mpp": 0.5' in page


def test_a_box_of_another_annotator_cannot_be_changed(slide_web):
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
    assert (
        owner.write(f"/slides/{KEY}/queue").headers["location"].endswith("queued=1")
    )  # one glomerulus


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"[" * 100_000, b'{"type": "Topology"}', b"\xff\xfe"]
)
def test_an_invalid_region_file_is_an_error(slide_web, content):
    sent = {"file": ("a.geojson", content, "application/geo+json")}
    answer = slide_web.client("anna").write(f"/slides/{KEY}/import", files=sent)
    assert answer.status_code == 422
    assert "/tmp" not in answer.text


def test_only_the_owner_distributes_images(slide_web):
    assert slide_web.client("anna").write(f"/slides/{KEY}/queue").status_code == 403


@pytest.mark.real
def test_an_unreadable_slide_is_an_error_of_its_own_page_only(tmp_path, real_data):
    web = open_web(tmp_path, slides=real_data / "slides" / "openslide_unreadable.svs")
    key = hashed_name("openslide_unreadable")
    answer = web.client("anna").get(f"/slides/{key}/thumbnail.jpg")
    assert answer.status_code == 422
    assert str(real_data) not in answer.text
    assert web.client("anna").get("/slides").status_code == 200
    web.store.close()


def test_the_slides_page_of_a_study_without_slides(web):
    assert "--slides" in web.client("owner").get("/slides").text
    assert SlideCache().entries() == []


REGION = "0" * 31 + "1"
BOX = Box(300, 200, 200, 160)


@pytest.fixture
def site(web, make_slide):
    return replace(web.site, slide_cache=SlideCache(make_slide(mpp=0.5)))


@pytest.fixture
def entry(site):
    return site.slide_cache.entry(hashed_name("slide"))


def _draw(site, login="anna", *, box=BOX, version=0, region_id=REGION, deleted=False):
    region = RegionInput(region_id, "slide", box, version, str(uuid.uuid4()), deleted=deleted)
    return save_region(site.store, region, login=login)


def test_a_box_becomes_a_region_a_crop_and_an_item_of_every_reader(site, entry):
    _draw(site)
    assert queue_boxes(site, entry, by="owner") == 1
    for login in ("anna", "bo"):
        last = list_items(site.store, login)[-1]
        image = find_item(site.store, login, last.assignment_id).image
        assert (image.slide_id, image.mpp, image.region_id) == ("slide", 0.5, REGION)
        assert image.box == BOX.grown(0.1)
        with open_slide(entry.path) as slide:
            expected = slide.read_region(image.box, mpp=0.5)
        np.testing.assert_array_equal(np.asarray(Image.open(image.image_path)), expected)
    assert queue_boxes(site, entry, by="owner") == 0


def test_a_box_cannot_change_after_it_was_distributed(site, entry):
    version = _draw(site).region.version
    queue_boxes(site, entry, by="owner")
    for change in ({"box": Box(1, 1, 9, 9)}, {"deleted": True}):
        with pytest.raises(AnnotationError, match="handed out"):
            _draw(site, version=version, **change)


def test_a_box_may_be_moved_and_deleted_before_it_is_cut(site, entry):
    version = _draw(site).region.version
    moved = _draw(site, version=version, box=Box(5, 6, 70, 80)).region
    assert list_regions(site.store, login="anna", slide_id="slide")[0].box == Box(5, 6, 70, 80)
    _draw(site, version=moved.version, deleted=True)
    assert list_regions(site.store, login="anna", slide_id="slide") == []
    assert queue_boxes(site, entry, by="owner") == 0


def test_a_slide_without_mpp_is_not_cut(web, tmp_path):
    Image.new("RGB", (900, 700), (200, 150, 180)).save(tmp_path / "slide.png")
    site = replace(web.site, slide_cache=SlideCache(tmp_path / "slide.png"))
    entry = site.slide_cache.entry(hashed_name("slide"))
    _draw(site)
    with pytest.raises(SlideError, match=r"could not be cut.*micromet") as caught:
        queue_boxes(site, entry, by="owner")
    assert str(tmp_path) not in str(caught.value)  # a browser learns no path


def test_a_box_cut_from_the_command_line_counts_as_handed_out(site, entry, tmp_path):
    version = _draw(site).region.version
    crop_regions(site.store, [entry], out=tmp_path / "elsewhere", by="owner")
    with pytest.raises(AnnotationError, match="handed out"):
        _draw(site, version=version, box=Box(1, 1, 9, 9))
    assert queue_boxes(site, entry, by="owner") == 0


def test_a_box_outside_the_slide_does_not_stop_the_others(site, entry):
    _draw(site)
    _draw(site, region_id="0" * 31 + "2", box=Box(90_000, 90_000, 10, 10))
    with pytest.raises(SlideError, match=r"1 shape.*outside.*1 other"):
        queue_boxes(site, entry, by="owner")
    image = item_at(site.store, "anna", len(list_items(site.store, "anna"))).image
    assert image.region_id == REGION


def test_boxes_are_exported_and_imported_with_qupath_coordinates(site, entry, tmp_path):
    _draw(site)
    file = tmp_path / "out.geojson"
    export_boxes(site.store, file, login="anna", slide_id="slide", bounds_offset=(10.0, 20.0))
    ring = json.loads(file.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == [290.0, 180.0]
    assert [r.box() for r in read_regions(file, bounds_offset=(10.0, 20.0))] == [BOX]
    for _ in range(2):  # the same file again changes nothing
        n_boxes = import_boxes(
            site.store, file, login="bo", slide_id="slide", frame=SlideFrame(None, (10.0, 20.0))
        )
        assert n_boxes == 1
    assert [r.box for r in list_regions(site.store, login="bo", slide_id="slide")] == [BOX]
    assert len(list_regions(site.store, login="owner", slide_id="slide")) == 2


def test_an_uploaded_file_for_several_slides_gives_the_boxes_of_this_one(site, entry, tmp_path):
    file = tmp_path / "upload.geojson"
    images = [{"id": n, "file_name": f"{name}.tif"} for n, name in enumerate(("slide", "other"))]
    boxes = [{"id": n, "image_id": n, "bbox": [100 * n, 50, 40, 40]} for n in range(2)]
    file.write_text(json.dumps({"images": images, "annotations": boxes}))
    frame = SlideFrame()
    assert import_boxes(site.store, file, login="bo", slide_id="slide", frame=frame) == 1
    assert [r.box for r in list_regions(site.store, login="bo")] == [Box(0, 50, 40, 40)]


def test_nothing_of_a_malformed_region_file_is_imported(site, entry, tmp_path):
    file = tmp_path / "bad.geojson"
    good = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    file.write_text(json.dumps([{"type": "Feature", "geometry": good}])[:-1])
    with pytest.raises(RegionError):
        import_boxes(site.store, file, login="bo", slide_id="slide", frame=SlideFrame())
    assert list_regions(site.store, login="owner", slide_id="slide") == []


def test_a_damaged_region_is_an_error_after_the_others_are_imported(site, entry, tmp_path):
    file = tmp_path / "bad.geojson"
    good = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    line = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [5, 0], [0, 0]]]}
    features = [{"type": "Feature", "geometry": one} for one in (good, line, None)]
    file.write_text(json.dumps(features))
    with pytest.raises(RegionError, match=r"1 region.* could not be imported"):
        import_boxes(site.store, file, login="bo", slide_id="slide", frame=SlideFrame())
    assert len(list_regions(site.store, login="owner", slide_id="slide")) == 1


def test_a_scale_that_contradicts_the_slide_stands_on_its_page(tmp_path, make_slide):
    slide = make_slide("S-1.tiff")
    table = tmp_path / "slides.csv"
    for mpp, is_told in ((5.0, True), (0.5, False)):
        table.write_text(f"slide_path,slide_id,mpp\n{slide.name},S-1,{mpp}\n")
        (tmp_path / str(mpp)).mkdir()
        web = open_web(tmp_path / str(mpp), slides=table)
        page = web.client("anna").get(f"/slides/{hashed_name('S-1')}").text
        assert ("0.5 µm per pixel, but 5 was given" in page) == is_told


def test_definitions_of_labels_come_with_the_studys_pictures(web):
    anna = web.client("anna")
    assert '"picture": "/labels/' not in anna.get("/label").text
    assert anna.get("/labels/cgn/picture").status_code == 404
    references = web.folder / "references"
    references.mkdir()
    Image.new("RGB", (40, 30), (200, 20, 20)).save(references / "cgn.png")
    (references / "unheard_of.png").write_bytes(b"")
    page = anna.get("/label").text
    assert '"picture": "/labels/cgn/picture"' in page
    assert "vascular pole" in page  # from the built-in definitions
    answer = anna.get("/labels/cgn/picture")
    assert answer.content == (references / "cgn.png").read_bytes()
    for name in ("unheard_of", "..%2Fimages%2Fglom_000", "fsg"):
        assert anna.get(f"/labels/{name}/picture").status_code == 404
    assert web.client().get("/labels/cgn/picture").status_code in {303, 401}
    owner = web.client("owner")
    assert "/labels/cgn/picture" in owner.get("/study/disagreement?image=glom_001").text
