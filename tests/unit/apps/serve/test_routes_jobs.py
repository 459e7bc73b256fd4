import csv
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.segmenters import disc_slide, write_segmenter
from tests.support.served_models import served, wait_for, write_slide


@pytest.fixture
def slides(keyed) -> Path:
    root = keyed.service.slides.root
    if not (root / "s1.tif").exists():
        write_slide(root)
    return root


def job_request(slide: str = "s1.tif", regions: str = "s1.geojson", **more) -> dict:
    return {"slides": [{"path": slide, "stain": "PAS"}], "regions": regions, **more}


def test_a_slide_becomes_a_job_whose_result_can_be_downloaded(keyed, slides):
    anna = keyed.client("anna")
    answer = anna.post("/v1/jobs", json=job_request())
    assert answer.status_code == 202
    assert anna.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]
    job = wait_for(answer.json()["id"], anna, "done", "failed")
    assert job["error"] is None
    assert job["outcome"]["n_images"] == 2
    got = {Path(address).name: anna.get(address) for address in job["results"]}
    assert set(got) == {"result.zip", "predictions.csv", "case.json", "report.html"}
    assert all(one.status_code == 200 for one in got.values())
    rows = list(csv.DictReader(io.StringIO(got["predictions.csv"].text)))
    assert [row["region_id"] for row in rows] == ["g0", "g1"]
    assert [float(row["probability_cgn"]) > 0.5 for row in rows] == [False, True]
    assert ["no_glomerulus" in row["reasons"] for row in rows] == [False, True]
    assert json.loads(got["case.json"].text)["model"]["taxonomy_name"] == "paper"
    assert "esearch use only" in got["report.html"].text
    assert str(slides) not in got["report.html"].text + got["predictions.csv"].text
    assert zipfile.ZipFile(io.BytesIO(got["result.zip"].content)).testzip() is None
    assert anna.get(f"/v1/jobs/{job['id']}/result/failures.csv").status_code == 404
    # Another client has no such job, and its own list is empty.
    bo = keyed.client("bo")
    assert bo.get("/v1/jobs").json()["jobs"] == []
    assert [one["id"] for one in anna.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    for address in (f"/v1/jobs/{job['id']}", *job["results"]):
        assert bo.get(address).status_code == 404
    assert anna.post(f"/v1/jobs/{job['id']}/cancel").status_code == 409
    assert anna.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert anna.get(f"/v1/jobs/{job['id']}").status_code == 404


def test_crops_are_answered_during_a_job_and_a_cancelled_one_leaves_nothing(keyed, slides, trained):
    anna = keyed.client("anna")
    job_id = anna.post("/v1/jobs", json=job_request()).json()["id"]
    image = (trained.parent / "60.png").read_bytes()
    assert anna.post("/v1/crops", content=image).status_code == 200
    assert anna.get(f"/v1/jobs/{job_id}").json()["state"] in {"queued", "running"}
    assert anna.get(f"/v1/jobs/{job_id}/result/predictions.csv").status_code == 409
    assert anna.delete(f"/v1/jobs/{job_id}").status_code == 409
    assert anna.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_for(job_id, anna, "cancelled")
    anna.delete(f"/v1/jobs/{job_id}")


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (job_request("../secret.tif"), 403, "relative to the slides folder"),
        (job_request("/etc/passwd"), 403, "relative to the slides folder"),
        (job_request("link.tif"), 403, "leaves the slides folder"),
        (job_request("nowhere.tif"), 404, "nowhere.tif"),
        (job_request(regions="../s1.geojson"), 403, "relative to the slides folder"),
        (job_request(regions="nowhere.geojson"), 404, "nowhere.geojson"),
        (job_request() | {"slides": [{"path": "s1.tif", "stain": "pas"}]}, 422, "H-DAB"),
        (job_request() | {"slides": [{"path": "s1.tif"}, {"path": "s1.geojson"}]}, 422, "patient"),
        (
            job_request(patient="p") | {"slides": [{"path": "s1.tif"}, {"path": "./s1.tif"}]},
            422,
            "twice",
        ),
        ({}, 422, "slides"),
        ({"slides": [{"path": "s1.tif"}]}, 422, "`detect`"),
        (job_request(detect=True), 422, "not both"),
        (job_request(regions=None, detect=True), 422, "--detector"),
        (job_request(margin=-1), 422, "margin"),
    ],
)
def test_an_impossible_request_is_rejected_at_once(keyed, slides, body, status, expected):
    link = slides / "link.tif"
    if not link.is_symlink():
        link.symlink_to("/etc/hostname")
    answer = keyed.client("anna").post("/v1/jobs", json=body)
    assert answer.status_code == status
    assert expected in answer.json()["detail"]
    assert keyed.client("anna").get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("job_id", ["nope", "0123456789abcdef", "%F0%9F%98%80", "x" * 500])
def test_an_unknown_job_is_404_and_named(keyed, job_id):
    anna = keyed.client("anna")
    for method, end in (
        ("GET", ""),
        ("POST", "/cancel"),
        ("DELETE", ""),
        ("GET", "/result/result.zip"),
    ):
        answer = anna.request(method, f"/v1/jobs/{job_id}{end}")
        assert answer.status_code == 404
        assert unquote(job_id)[:20] in answer.json()["detail"]


def test_an_unknown_result_is_404_and_the_known_ones_are_listed(keyed):
    answer = keyed.client("anna").get("/v1/jobs/0123456789abcdef/result/all.zip")
    assert answer.status_code == 404
    assert "'all.zip'" in answer.json()["detail"]
    assert "result.zip" in answer.json()["detail"]


def test_a_server_without_a_slides_folder_rejects_jobs(open_server):
    for path in ("/v1/jobs", "/v1/jobs/0123456789abcdef"):
        answer = open_server.client().get(path)
        assert answer.status_code == 404
        assert "--slides" in answer.json()["detail"]


def test_a_server_with_a_segmenter_takes_slides_without_regions(trained, tmp_path) -> None:
    segmenter = write_segmenter(tmp_path / "segmenter")
    with served(trained, tmp_path, with_slides=True, detector=segmenter) as server:
        disc_slide(server.service.slides.root / "d.tif", [(300, 200, 90)], size=(900, 500))
        http = server.client()
        assert http.get("/v1/model").json()["detector"]["run"] == "segmenter"
        page = http.get("/slides").text
        assert '"canDetect": true' in page
        body = {"slides": [{"path": "d.tif", "stain": "PAS"}], "detect": True}
        refused = http.post("/v1/jobs", json=body | {"classes": ["gs"]})
        assert (refused.status_code, "`regions`" in refused.json()["detail"]) == (422, True)
        job = wait_for(http.post("/v1/jobs", json=body).json()["id"], http, "done", "failed")
        assert (job["error"], job["outcome"]["n_images"]) == (None, 1)
