import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glomerulab.apps.annotation.web.schemas import AnnotationBody, RegionBody, item_json

GOOD = {
    "assignment_id": 1,
    "labels": {"mspgn": 1},
    "expected_version": 0,
    "save_key": str(uuid.uuid4()),
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"assignment_id": 2**63},
        {"labels": {"mspgn": 2}},
        {"labels": {"x" * 300: 1}},
        {"note": "a\x00b"},
        {"note": "x" * 5000},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"save_key": "no key"},
        {"expected_version": -1},
        {"who": "anna"},
        {"image_mark": "../../etc/passwd"},
        {"labels": {str(n): 1 for n in range(65)}},
        {"labels": {"mspgn": True}},
        {"labels": {"mspgn": "1"}},
        {"labels": {"mspgn": 1.0}},
        {"labels": {"mspgn": None}},
        {"labels": ["mspgn"]},
        {"assignment_id": "1"},
        {"assignment_id": True},
        {"expected_version": "0"},
        {"unsure": "yes"},
        {"unsure": 1},
        {"seconds": "1.5"},
    ],
)
def test_an_invalid_save_is_rejected(change):
    with pytest.raises(ValidationError):
        AnnotationBody.model_validate(GOOD | change)


def test_the_texts_of_a_save_are_stripped():
    body = AnnotationBody.model_validate(GOOD | {"note": "  two nuclei ", "skip_reason": "  "})
    content = body.content()
    assert (content.labels, content.note, content.skip_reason) == (
        {"mspgn": 1},
        "two nuclei",
        None,
    )


@given(st.integers(-(10**7), 10**7), st.integers(1, 10**7))
def test_every_box_on_a_slide_can_be_sent(corner, side):
    body = RegionBody.model_validate(
        {
            "region_id": str(uuid.uuid4()),
            "save_key": str(uuid.uuid4()),
            "expected_version": 0,
            "x": corner,
            "y": corner,
            "width": side,
            "height": side,
        }
    )
    assert body.region("s", "r").box.width == side


def test_an_item_identifies_neither_image_nor_patient(web):
    from glomerulab.apps.annotation.store.annotations import item_at

    item = item_at(web.store, "anna", 1)
    sent = item_json(item, image_mark="0" * 64, image_error=None)
    text = str(sent)
    for secret in (item.image.image_id, item.image.patient_id, item.image.slide_id, "images/"):
        assert str(secret) not in text
    assert sent["image_url"] == f"/items/{item.assignment_id}/image?v={'0' * 16}"
