import socket
from dataclasses import replace

import pytest

from glomerulab.apps.annotation.records import SaveConflictError
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.web import app, routes_annotator
from glomerulab.apps.annotation.web.app import serve, start_message, status_of
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import (
    AnnotationError,
    NotAllowedError,
    OutputError,
    SlideError,
    StoreBusyError,
    StoreError,
    UnknownRecordError,
)

PAGES = ["/login", "/label", "/api/items", "/static/app.css", "/nowhere", "/study"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/vendor/versions.json",
        "/static/",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/static/../../../../../../etc/passwd",
        "/items/..%2f..%2fetc%2fpasswd/image",
        "/slides/..%2f..%2fetc/thumbnail.jpg",
        "/slides/CMU-1/label.jpg",
        "/slides/CMU-1/macro",
    ],
)
def test_no_path_leads_to_a_file(web, path):
    answer = web.client("owner").get(path)
    assert answer.status_code in {404, 422}
    assert "root:" not in answer.text
    assert "def create_app" not in answer.text


def test_static_files_have_their_media_type(web):
    client = web.client()
    kinds = {
        "app.css": "text/css",
        "label.js": "text/javascript",
        "vendor/htmx.min.js": "text/javascript",
    }
    for name, kind in kinds.items():
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize("path", PAGES)
def test_every_response_has_the_security_headers(web, path):
    answer = web.client("owner").get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_browsers_cache_files_but_not_pages(web):
    client = web.client("anna")
    assert client.get("/label").headers["Cache-Control"] == "no-store"
    assert "immutable" in client.get("/static/app.css").headers["Cache-Control"]


def test_an_unknown_host_name_is_rejected(web):
    answer = web.client().get("/login", headers={"Host": "evil.example"})
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "header",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_write_from_another_site_is_refused_even_with_the_token(web, header):
    client = web.client("anna")
    headers = {"X-CSRF-Token": client.token, **header}
    item = client.get("/api/items/1").json()
    body = {"assignment_id": item["assignment_id"]}
    assert client.post("/api/annotations", json=body, headers=headers).status_code == 403


def test_a_large_request_is_rejected_by_its_header_and_by_its_content(web, monkeypatch):
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 1000)
    client = web.client("anna")
    assert client.write("/api/annotations", content=b"x" * 1001).status_code == 413

    def chunks():
        for _ in range(20):
            yield b"x" * 100

    assert client.write("/api/annotations", content=chunks()).status_code == 413


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (AnnotationError, 422),
        (NotAllowedError, 403),
        (UnknownRecordError, 404),
        (SaveConflictError, 409),
        (StoreError, 507),
        (StoreBusyError, 503),
        (OutputError, 507),
        (SlideError, 422),
    ],
)
def test_every_known_error_has_its_status(kind, status):
    assert status_of(kind("why")) == status


def test_a_locked_or_full_database_is_reported_without_its_path(web, monkeypatch):
    client = web.client("anna")
    item = client.get("/api/items/1").json()
    for error, status in ((StoreBusyError, 503), (StoreError, 507)):

        def refuse(*_args, kind=error, **_named):
            raise kind("why not", where="/secret/place.db")

        monkeypatch.setattr(routes_annotator, "save_annotation", refuse)
        answer = client.save(item)
        assert (answer.status_code, answer.json()["detail"]) == (status, "why not")
        assert "secret" not in answer.text


def test_an_unexpected_error_is_reported_without_a_traceback(web, monkeypatch):
    client = web.client("anna")
    client._transport.raise_server_exceptions = False

    def fail(*_args):
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr(routes_annotator, "list_items", fail)
    answer = client.get("/api/items")
    assert answer.status_code == 500
    assert "42" not in answer.text
    assert "unexpected" in answer.json()["detail"]


def test_an_invalid_field_is_named_with_its_value_in_json(web):
    answer = web.client("anna").write(
        "/api/annotations",
        content=b'{"seconds": NaN, "assignment_id": "<script>"}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert "seconds must be a finite number" in answer.json()["detail"]
    # JSON, and `nosniff`: a browser runs nothing of it.
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_was_sent_is_escaped_on_a_page(web):
    answer = web.client("owner").get("/<script>")
    assert answer.status_code == 404
    assert "<script>" not in answer.text.split("<h1>")[1]
    answer = web.client("owner").write("/study/people", data={"login": "<script>alert(1)"})
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text


def test_a_missing_page_is_an_html_page(web):
    answer = web.client("owner").get("/nowhere")
    assert answer.status_code == 404
    assert "<h1>" in answer.text


def test_the_terminal_warns_when_the_server_listens_on_the_network(web):
    local = "\n".join(start_message(web.site, host="127.0.0.1", port=8000))
    assert "http://127.0.0.1:8000" in local
    assert "research use only" in local
    assert "warning" not in local
    assert "unencrypted" in "\n".join(start_message(web.site, host="0.0.0.0", port=8000))


def test_a_new_database_is_set_up_through_an_address_with_a_secret(tmp_path):
    with open_store(tmp_path / "new.db", create=True) as store:
        site = replace(Site(store, SlideCache()), setup_token="the-secret")
        assert "/setup?token=the-secret" in "\n".join(start_message(site, host="::1", port=8000))


def test_a_port_in_use_is_an_error_that_names_it(web):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port") as caught:
            serve(web.site, host="127.0.0.1", port=port, echo=lambda line: None)
    assert caught.value.where == f"127.0.0.1:{port}"
