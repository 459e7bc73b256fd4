import pytest

from glomerulab.apps.annotation.records import SaveConflictError
from glomerulab.apps.annotation.web import routes_label
from glomerulab.apps.annotation.web.error_handlers import status_of
from glomerulab.errors import (
    AnnotationError,
    NotAllowedError,
    OutputError,
    SlideError,
    StoreBusyError,
    StoreError,
    UnknownRecordError,
)


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
def test_every_foreseen_error_has_its_status(kind, status):
    assert status_of(kind("why")) == status


def test_a_database_that_is_locked_or_full_is_told_and_the_path_is_not(web, monkeypatch):
    client = web.client("anna")
    item = client.get("/api/items/1").json()
    for error, status in ((StoreBusyError, 503), (StoreError, 507)):

        def refuse(*_args, kind=error, **_named):
            raise kind("why not", where="/secret/place.db")

        monkeypatch.setattr(routes_label, "save_annotation", refuse)
        answer = client.save(item)
        assert (answer.status_code, answer.json()["detail"]) == (status, "why not")
        assert "secret" not in answer.text


def test_what_nobody_foresaw_is_told_without_a_trace(web, monkeypatch):
    client = web.client("anna")
    client._transport.raise_server_exceptions = False

    def fail(*_args):
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr(routes_label, "list_items", fail)
    answer = client.get("/api/items")
    assert answer.status_code == 500
    assert "42" not in answer.text
    assert "unexpected" in answer.json()["detail"]


def test_what_is_no_number_is_named_and_not_repeated(web):
    answer = web.client("anna").write(
        "/api/annotations",
        content=b'{"seconds": NaN, "assignment_id": "<script>"}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert "seconds" in answer.json()["detail"]
    assert "<script>" not in answer.text


def test_a_page_that_is_not_there_is_a_page(web):
    answer = web.client("owner").get("/nowhere")
    assert answer.status_code == 404
    assert "<h1>" in answer.text
