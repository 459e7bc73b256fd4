import pytest

from glomerulab.serving.notice import NOTICE, NOTICE_HEADER


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"),
        ("GET", "/v1/model"), ("POST", "/v1/crops"), ("GET", "/v1/jobs"), ("GET", "/nowhere"),
        ("GET", "/static/page.js"), ("GET", "/openapi.json"), ("PUT", "/v1/crops"),
    ],
)  # fmt: skip
def test_every_answer_says_research_use_only(open_server, keyed, method, path):
    for client in (open_server.client(), keyed.client("anna"), keyed.client()):
        answer = client.request(method, path)
        assert answer.headers[NOTICE_HEADER] == NOTICE
        assert NOTICE.startswith("Research use only")
        if answer.headers["content-type"] == "application/json" and path != "/openapi.json":
            assert answer.json()["research_use_only"] == NOTICE


def test_the_page_and_the_numbers_say_it_where_a_person_reads(open_server):
    client = open_server.client()
    for path in ("/", "/metrics"):
        assert NOTICE in client.get(path).text
    assert "Research use only" in client.get("/openapi.json").json()["info"]["description"]
