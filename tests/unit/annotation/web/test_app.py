import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd",
        "/static/vendor/versions.json", "/static/", "/openapi.json", "/docs", "/redoc",
        "/static/../../../../../../etc/passwd", "/items/..%2f..%2fetc%2fpasswd/image",
        "/slides/..%2f..%2fetc/thumbnail.jpg", "/slides/CMU-1/label.jpg", "/slides/CMU-1/macro",
    ],
)  # fmt: skip
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
