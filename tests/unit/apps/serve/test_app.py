import pytest

from glomerulab.apps.web.security import NOTICE, NOTICE_HEADER


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/docs",
        "/redoc",
        "/static/",
        "/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/v1/jobs/0123456789abcdef/result/../../x",
        "/v1/jobs/0123456789abcdef/result/job.json",
        "/v1/jobs/../../../../etc/passwd/result",
    ],
)
def test_no_path_leads_to_a_file(keyed, path):
    answer = keyed.client("anna").get(path)
    assert answer.status_code in {404, 422}
    assert "root:" not in answer.text


def test_every_response_carries_the_security_headers(open_server):
    for path in ("/", "/health", "/nowhere"):
        headers = open_server.client().get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_page_of_another_site_cannot_ask_in_a_visitors_name(open_server):
    client = open_server.client()
    headers = {"Origin": "http://evil.example"}
    assert client.post("/v1/crops", content=b"x", headers=headers).status_code == 403
    refused = client.get("/health", headers={"Host": "evil.example"})
    assert refused.status_code == 421
    assert refused.json()["research_use_only"] == NOTICE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/v1/model"),
        ("POST", "/v1/crops"),
        ("GET", "/v1/jobs"),
        ("GET", "/nowhere"),
        ("GET", "/static/page.js"),
        ("GET", "/openapi.json"),
        ("PUT", "/v1/crops"),
    ],
)
def test_every_response_states_research_use_only(open_server, keyed, method, path):
    for client in (open_server.client(), keyed.client("anna"), keyed.client()):
        answer = client.request(method, path)
        assert answer.headers[NOTICE_HEADER] == NOTICE
        assert NOTICE.startswith("Research use only")
        if answer.headers["content-type"] == "application/json" and path != "/openapi.json":
            assert answer.json()["research_use_only"] == NOTICE


def test_page_and_metrics_state_research_use_only(open_server):
    client = open_server.client()
    for path in ("/", "/metrics"):
        assert NOTICE in client.get(path).text
    assert "Research use only" in client.get("/openapi.json").json()["info"]["description"]
