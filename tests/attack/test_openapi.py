"""Both servers answer whatever their OpenAPI allows and forbids as it states, for 20 minutes each.

``GLOMERULAB_API_SECONDS`` sets a shorter time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.apps.serve.auth import add_key
from tests.support.annotation_server import Person, Server
from tests.support.annotation_studies import OWNER, make_study
from tests.support.annotation_web import write_images
from tests.support.served_models import ServedProcess, write_slide

SECONDS = int(os.environ.get("GLOMERULAB_API_SECONDS", "1200"))

# A body that is larger than the server takes is refused before it is read.
CONFIGURATION = """[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
"""

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(SECONDS + 600)]


def ask(folder: Path, document: dict, address: str, headers: dict[str, str]) -> None:
    """Run schemathesis, and fail with its output.

    What is accepted also depends on the study, the slides and the bytes of an image.
    """
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    sent = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", "openapi.json"),
        *("--url", address, "--max-time", str(SECONDS), "--request-timeout", "60"),
        *("--exclude-path", "/logout", "--exclude-path", "/setup", "--exclude-path", "/account"),
        *("--continue-on-failure", "--suppress-health-check", "all", *sent),
        *("--exclude-checks", "positive_data_acceptance"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-40_000:] + done.stderr[-2000:]


def test_serve(trained: Path, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "anna")
    write_slide(tmp_path / "slides")
    server = ServedProcess(
        tmp_path,
        *("--model", trained, "--keys", tmp_path / "keys.json"),
        *("--slides", tmp_path / "slides", "--jobs", tmp_path / "jobs"),
    )
    try:
        address = str(server.http.base_url).rstrip("/")
        document = server.http.get("/openapi.json").json()
        ask(tmp_path, document, address, {"Authorization": f"Bearer {key}"})
        assert server.http.get("/ready").status_code == 200
    finally:
        server.stop()


@pytest.mark.parametrize("login", ["anna", OWNER])
def test_annotate_serve(login: str, tmp_path: Path, make_slide) -> None:
    db, slide = tmp_path / "annotations.db", make_slide()
    with open_store(db, create=True) as store:
        make_study(store, manifest=write_images(tmp_path, 6))
        document = create_app(Site(store, SlideCache(slide))).openapi()
    server = Server(db, "--slides", slide)
    try:
        person = Person(server.address, login)
        cookies = "; ".join(f"{name}={value}" for name, value in person.http.cookies.items())
        headers = {"Cookie": cookies, "X-CSRF-Token": person.http.headers["X-CSRF-Token"]}
        ask(tmp_path, document, server.address, headers)
        assert person.http.get("/login").status_code == 200
        person.http.close()
    finally:
        server.stop()
