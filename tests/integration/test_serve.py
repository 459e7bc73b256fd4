"""The real command, killed in the middle of its work as a power cut would."""

import csv
import time
from pathlib import Path

import pytest

from glomerulab.apps.serve.auth import KeyRing
from tests.support.dicom_slides import write_dicom_slide
from tests.support.segmenters import ALL_STRUCTURES, disc_pixels, disc_slide, write_segmenter
from tests.support.served_models import ServedProcess, wait_for, write_slide


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(one) for path in found for one in path.read_text().split()]


@pytest.mark.slow
def test_a_server_killed_during_a_job_resumes_it(trained, tmp_path):
    write_slide(tmp_path / "slides", n=150)
    server = ServedProcess(
        tmp_path, "--model", trained, "--slides", tmp_path / "slides", "--jobs", tmp_path / "jobs"
    )
    body = {"slides": [{"path": "s1.tif", "stain": "PAS"}], "regions": "s1.geojson"}
    job_id = server.http.post("/v1/jobs", json=body).json()["id"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = server.http.get(f"/v1/jobs/{job_id}").json()
        if (job["progress"] or {}).get("stage") == "Cutting crops":
            break
    workers = children(server.process.pid)
    server.kill()
    assert workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert not (tmp_path / "jobs" / job_id / "result" / "case.json").exists()
    server.start()
    job = wait_for(job_id, server.http, "done", "failed")
    server.stop()
    assert (job["state"], job["n_starts"], job["outcome"]["n_images"]) == ("done", 2, 150)
    assert not list((tmp_path / "jobs").rglob("*.partial-*"))


@pytest.mark.slow
def test_slides_of_an_inbox_are_done_once_whatever_happens_to_the_server(trained, tmp_path):
    inbox = tmp_path / "inbox"
    disc_slide(inbox / "a.tif", [(300, 200, 90), (620, 260, 70)], size=(900, 500))
    (inbox / "broken.tif").write_bytes(b"II*\0broken")
    segmenter = write_segmenter(tmp_path / "segmenter", structures=ALL_STRUCTURES)
    options = ["--model", trained, "--detector", segmenter, "--inbox", inbox]
    server = ServedProcess(tmp_path, *options, "--jobs", tmp_path / "jobs", "--language", "zh")
    assert "inbox.results" in server.output()
    assert "inbox" in server.http.get("/slides").text
    wait_until(lambda: server.http.get("/v1/jobs").json()["jobs"])
    server.kill()
    server.start()
    wait_until(lambda: len(ended(inbox)) == 2)
    disc_slide(tmp_path / "b.tif", [(300, 200, 90)], size=(900, 500))
    (tmp_path / "b.tif").rename(inbox / "b.tif")
    wait_until(lambda: len(ended(inbox)) == 3)
    assert len(server.http.get("/v1/jobs").json()["jobs"]) == 3
    server.stop()
    rows = ended(inbox)
    assert {name: row["state"] for name, row in rows.items()} == {
        "a.tif": "done",
        "b.tif": "done",
        "broken.tif": "failed",
    }
    assert rows["broken.tif"]["error"]
    place = tmp_path / "inbox.results" / rows["a.tif"]["folder"]
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "皮质与组织" in page
    assert {"result.zip", "predictions.csv", "case.json", "slide.json"} <= {
        path.name for path in place.iterdir()
    }


@pytest.mark.slow
def test_a_dicom_series_dropped_as_loose_files_goes_to_a_report(trained, tmp_path):
    inbox = tmp_path / "inbox"
    for name, discs in (("a", [(300, 200, 90), (620, 260, 70)]), ("b", [(500, 250, 80)])):
        pixels = disc_pixels(discs, size=(1024, 512))
        write_dicom_slide(inbox, full=pixels, mpp=1.0, name=name, series=f"1.2.{len(discs)}")
    (inbox / "b_7.dcm").write_bytes((inbox / "b_1.dcm").read_bytes()[:300])
    segmenter = write_segmenter(tmp_path / "segmenter", structures=ALL_STRUCTURES)
    options = ["--model", trained, "--detector", segmenter, "--inbox", inbox]
    server = ServedProcess(tmp_path, *options, "--jobs", tmp_path / "jobs")
    wait_until(lambda: len(ended(inbox)) == 3)
    rows = ended(inbox)
    assert server.http.get("/v1/slides").json()["slides"] == ["a_1.dcm", "b_1.dcm", "b_7.dcm"]
    server.stop()
    assert {name: row["state"] for name, row in rows.items()} == {
        "a_1.dcm": "done",
        "b_1.dcm": "done",
        "b_7.dcm": "failed",
    }
    assert "damaged" in rows["b_7.dcm"]["error"]
    for name, n_glomeruli in (("a_1.dcm", 2), ("b_1.dcm", 1)):
        place = tmp_path / "inbox.results" / rows[name]["folder"]
        assert (place / "report.html").is_file()
        with (place / "predictions.csv").open(encoding="utf-8-sig", newline="") as stream:
            assert len(list(csv.DictReader(stream))) == n_glomeruli


def ended(inbox: Path) -> dict[str, dict[str, str]]:
    path = inbox.with_name("inbox.results") / "slides.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return {row["slide"]: row for row in csv.DictReader(stream) if row["ended"]}


def wait_until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_key_is_made_shown_once_and_revoked_on_the_command_line(run, tmp_path):
    keys = tmp_path / "keys.json"
    made = run("api-key", "anna", "--keys", keys)
    key = made.stdout.strip()
    assert made.returncode == 0
    assert "Bearer" in made.stderr
    assert KeyRing(keys).find(key) == "anna"
    assert run("api-key", "anna", "--keys", keys).returncode == 1
    assert "no longer valid" in run("api-key", "anna", "--keys", keys, "--revoke").stdout
    assert KeyRing(keys).find(key) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], "glomerulab api-key"),
        (["--keys", "nowhere.json"], "api-key"),
        (["--slides", "nowhere"], "--slides"),
        (["--taxonomy", "nowhere.toml"], "nowhere.toml"),
        (["--inbox", "."], "--detector"),
        (["--inbox", "nowhere", "--detector", "net"], "--inbox"),
    ],
)
def test_a_server_that_cannot_start_reports_the_reason_in_one_line(run, trained, options, expected):
    done = run("serve", "--model", trained, "--port", "0", *options)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_invalid_model_is_rejected_in_one_line(run, tmp_path):
    done = run("serve", "--model", tmp_path, "--port", "0")
    assert done.returncode == 1
    assert "no trained model" in done.stderr
