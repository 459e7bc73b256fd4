import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/docs", "/redoc",
        "/static/", "/v1/jobs/..%2f..%2fetc%2fpasswd", "/v1/jobs/0123456789abcdef/result/../../x",
        "/v1/jobs/0123456789abcdef/result/job.json", "/v1/jobs/../../../../etc/passwd/result",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(keyed, path):
    answer = keyed.client("anna").get(path)
    assert answer.status_code in {404, 422}
    assert "root:" not in answer.text


def test_every_answer_carries_the_security_headers(open_server):
    for path in ("/", "/health", "/nowhere"):
        headers = open_server.client().get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_page_of_another_site_cannot_ask_in_a_visitors_name(open_server):
    client = open_server.client()
    headers = {"Origin": "http://evil.example"}
    assert client.post("/v1/crops", content=b"x", headers=headers).status_code == 403
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421
