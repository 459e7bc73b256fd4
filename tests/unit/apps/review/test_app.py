import io
import re

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from glomerulab.apps.review.app import create_app
from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.apps.web.security import NOTICE
from glomerulab.cases.corrections import CORRECTIONS_FILE
from glomerulab.images import write_image
from glomerulab.slides.pyramid import write_pyramid
from tests.conftest import smooth_noise
from tests.support.cases import case, case_folder, one_call, write_case
from tests.support.reviews import change

SECRET = "the-secret"  # of the fixture
PAGE = "cases/p1/"
CHANGES = "cases/p1/changes"


def test_a_change_is_counted_and_the_page_that_follows_holds_it(client, predictions):
    before = client.get(PAGE).text
    assert "10 glomeruli: 7 normal, 1 segmental sclerosis, 2 crescent" in before
    answer = client.post(CHANGES, json=change())
    assert (answer.status_code, answer.json()["seen"]) == (200, 1)
    after = client.get(PAGE).text
    assert "10 glomeruli: 7 normal, 3 crescent" in after
    assert "<s>Segmental sclerosis</s>" in after  # the model's call
    assert "Dr Li" in after
    assert "3 / 10 (30 %)" in after  # of the rules
    assert "Dr Li" in (predictions / CORRECTIONS_FILE).read_text(encoding="utf-8")


def test_one_case_is_shown_at_once_and_several_are_listed(client, predictions):
    assert client.get("").url.path == f"/{SECRET}/cases/p1/"
    write_case(predictions, [one_call("a"), one_call("b", patient="p2")])
    listed = client.get("").text
    assert 'href="cases/p1/"' in listed
    assert 'href="cases/p2/"' in listed
    assert 'href="../../"' in client.get(PAGE).text


def test_requests_without_the_secret_get_no_information(client, predictions):
    for path in ("/", "/wrong/", f"/{SECRET}x/", f"/wrong/{PAGE}", f"/wrong/{PAGE}state"):
        answer = client.get(f"http://127.0.0.1{path}", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "open the one that glomerulab review gives" in answer.text
        assert "p1" not in answer.text
    refused = client.post(f"http://127.0.0.1/wrong/{CHANGES}", json=change())
    assert refused.status_code == 404
    assert not (predictions / CORRECTIONS_FILE).exists()


@pytest.mark.parametrize("path", ["cases/none/", "nothing"])
@pytest.mark.parametrize(
    ("language", "expected"),
    [("en", "open the one that glomerulab review gives"), ("zh", "请打开 glomerulab review")],
)
def test_the_page_for_an_unknown_address_is_in_the_chosen_language(
    session, path, language, expected
):
    app = create_app(session, secret=SECRET, language=language)
    answer = TestClient(app, base_url=f"http://127.0.0.1/{SECRET}/").get(
        path, headers={"Accept": "text/html"}
    )
    assert answer.status_code == 404
    assert expected in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_no_other_page_can_change_a_call_even_with_the_secret(client, predictions, headers, status):
    answer = client.post(CHANGES, json=change(), headers=headers)
    assert answer.status_code == status
    assert answer.json()["research_use_only"] == NOTICE
    assert not (predictions / CORRECTIONS_FILE).exists()


def test_an_outdated_page_is_sent_the_author_of_the_change(client):
    client.post(CHANGES, json=change(by="Dr Wu", labels="mspgn"))
    answer = client.post(CHANGES, json=change())
    assert answer.status_code == 409
    conflict = answer.json()
    assert (conflict["current"]["by"], conflict["current"]["labels"], conflict["seen"]) == (
        "Dr Wu",
        "mspgn",
        1,
    )
    assert client.post(CHANGES, json=change(seen=1)).json()["seen"] == 2


def test_a_change_sent_again_is_counted_once(client, predictions):
    for _ in range(2):
        assert client.post(CHANGES, json=change()).json()["seen"] == 1
    assert (predictions / CORRECTIONS_FILE).read_text(encoding="utf-8").count("Dr Li") == 1


@pytest.mark.parametrize(
    "parts",
    [
        {"image_id": "unknown"},
        {"labels": "tumour"},
        {"labels": ""},
        {"labels": "normal+cgn"},
        {"by": " "},
        {"reason": ""},
        {"reason": "x" * 501},
        {"time": "now"},
        {"time": "2999-01-01T00:00:00+00:00"},
        {"seen": -1},
        {"place": "here"},
        {"place": "99999 99999 10 10"},
        {"further": 1},
        {"by": None},
    ],
)
def test_an_invalid_change_is_rejected_and_not_written(client, predictions, parts):
    answer = client.post(CHANGES, json=change(**parts))
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert answer.json()["research_use_only"] == NOTICE
    assert not (predictions / CORRECTIONS_FILE).exists()


def test_a_change_names_an_image_of_its_own_case(client, predictions):
    write_case(predictions, [one_call("x"), one_call("y", patient="p2")])
    refused = client.post("cases/p2/changes", json=change())
    assert refused.status_code == 422
    assert "another case" in refused.json()["detail"]
    assert client.post("cases/p7/changes", json=change()).status_code == 422
    assert not (predictions / CORRECTIONS_FILE).exists()
    assert client.post(CHANGES, json=change()).status_code == 200


def test_a_missing_image_has_a_reason_code_that_the_page_translates(client, predictions):
    write_case(predictions, case((3, "normal")))
    assert client.post(CHANGES, json=change()).json()["why"] == "no_image"


def test_a_damaged_folder_is_named_on_the_page_until_it_is_repaired(client, predictions):
    (predictions / CORRECTIONS_FILE).write_text("time,by\n1,2\n")
    broken = client.get(PAGE, headers={"Accept": "text/html"})
    assert broken.status_code == 422
    assert "overrides.csv" in broken.text
    assert "Research use only" in broken.text
    (predictions / CORRECTIONS_FILE).unlink()
    assert client.get(PAGE).status_code == 200


def test_an_unwritable_folder_is_an_error_and_leaves_no_partial_file(client, predictions):
    (predictions / CORRECTIONS_FILE).mkdir()
    answer = client.post(CHANGES, json=change())
    assert answer.status_code == 507
    assert "cannot be written" in answer.json()["detail"]


def test_the_state_changes_when_a_call_does(client):
    first = client.get("cases/p1/state").json()["state"]
    assert f'"state": "{first}"' in client.get(PAGE).text
    client.post(CHANGES, json=change())
    assert client.get("cases/p1/state").json()["state"] != first


def test_the_pdf_holds_what_is_counted_now(client):
    answer = client.get("cases/p1/report.pdf")
    assert answer.content.startswith(b"%PDF-")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="p1.pdf"'


def test_the_page_may_connect_to_its_own_server_only(client):
    answer = client.get(PAGE)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert re.search(r"script-src ('sha256-[\w+/=]+' ?)+;", policy)
    assert answer.headers["X-Research-Use-Only"] == NOTICE
    assert answer.headers["Cache-Control"] == "no-store"


def test_predictions_damaged_during_the_review_are_reported_with_their_own_error(
    client, predictions
):
    assert client.get(f"{PAGE}state").status_code == 200
    table = predictions / "predictions.csv"
    content = table.read_text(encoding="utf-8")
    table.write_text("nonsense\n1\n", encoding="utf-8")
    answer = client.get(f"{PAGE}state")
    assert answer.status_code == 422
    assert "predictions.csv" in answer.json()["detail"]
    table.write_text(content, encoding="utf-8")
    assert client.get(f"{PAGE}state").status_code == 200


@pytest.fixture
def pictured(tmp_path):
    """A case with crops and maps, the slide s1 at hand, and a browser for it."""
    folder = case_folder(tmp_path / "predictions").folder
    (tmp_path / "slides").mkdir()
    pixels = smooth_noise(1000, 1000, seed=3)
    write_pyramid(pixels, tmp_path / "slides" / "s1.tiff", mpp=0.5, compression="deflate")
    app = create_app(
        ReviewSession(folder, slides=tmp_path / "slides"), secret=SECRET, language="en"
    )
    base = f"http://127.0.0.1/{SECRET}/"
    return folder, TestClient(app, base_url=base, raise_server_exceptions=False)


def _pictures(page: str) -> list[str]:
    return re.findall(r"\.\./\.\./pictures/(\w+)\.jpg", page)


def test_a_page_loaded_again_names_the_same_pictures_which_browsers_keep(pictured):
    folder, client = pictured
    page = client.get(PAGE).text
    assert "data:image/jpeg" not in page
    assert _pictures(client.get(PAGE).text) == _pictures(page)
    for name in set(_pictures(page)):
        answer = client.get(f"pictures/{name}.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        Image.open(io.BytesIO(answer.content)).load()
    write_image(np.zeros((90, 90, 3), dtype=np.uint8), folder / "crop0.png")
    changed = set(_pictures(client.get(PAGE).text)) - set(_pictures(page))
    assert len(changed) == 1


def test_surroundings_of_a_slide_at_hand_are_shown_and_other_files_are_not(pictured):
    folder, client = pictured
    page = client.get(PAGE).text
    assert page.count("data-context=") == 4
    for name in ("none", "..%2Fcase", "crop0"):
        assert client.get(f"pictures/{name}.jpg").status_code == 404
    (folder / "crop0.png").write_bytes(b"no picture")
    assert "its file cannot be read" in client.get(PAGE).text
