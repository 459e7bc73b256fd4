import pytest

from glomerulab.apps.annotation.web import app

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


def test_the_packages_own_files_are_given_with_their_kind(web):
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
def test_every_answer_carries_the_headers(web, path):
    answer = web.client("owner").get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_pages_are_not_kept_and_files_are(web):
    client = web.client("anna")
    assert client.get("/label").headers["Cache-Control"] == "no-store"
    assert "immutable" in client.get("/static/app.css").headers["Cache-Control"]


def test_a_host_this_server_is_not_called_by_is_refused(web):
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


def test_a_large_request_is_refused_by_what_it_says_and_by_what_it_sends(web, monkeypatch):
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 1000)
    client = web.client("anna")
    assert client.write("/api/annotations", content=b"x" * 1001).status_code == 413

    def chunks():
        for _ in range(20):
            yield b"x" * 100

    assert client.write("/api/annotations", content=chunks()).status_code == 413
