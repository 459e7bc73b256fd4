"""The real command, killed in the middle of its work as a power cut would."""

import time
from pathlib import Path

import pytest

from glomerulab.apps.serve.auth import KeyRing
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
