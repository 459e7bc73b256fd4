import json

import pytest

from glomerulab.apps.serve.errors import BusyError, JobStateError, NoKeyError, error_response
from glomerulab.apps.web.security import NOTICE
from glomerulab.errors import (
    GlomerulabError,
    ImageFileError,
    NotAllowedError,
    OutputError,
    UnknownRecordError,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoKeyError("x"), 401),
        (NotAllowedError("x"), 403),
        (UnknownRecordError("x"), 404),
        (JobStateError("x"), 409),
        (ImageFileError("x"), 422),
        (GlomerulabError("x"), 422),
        (OutputError("x"), 507),
    ],
)
def test_each_error_has_the_status_that_fits(error, status):
    answer = error_response(error)
    assert answer.status_code == status
    assert json.loads(answer.body) == {"detail": "x", "research_use_only": NOTICE}


def test_a_path_of_the_server_stays_on_the_server():
    answer = error_response(ImageFileError("cannot be read", where="/srv/secret/patient.png"))
    assert b"secret" not in answer.body


def test_a_busy_server_sends_retry_after():
    answer = error_response(BusyError("too much", status=503, wait_s=9))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "9")


def test_an_unexpected_error_is_a_500_without_traceback_and_affects_no_other_request(
    open_server, monkeypatch
):
    from glomerulab.apps.serve import routes_service

    def broken():
        raise RuntimeError("secret")

    monkeypatch.setattr(routes_service, "ModelResponse", lambda **_parts: broken())
    answer = open_server.client().get("/v1/model")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert open_server.client().get("/health").status_code == 200


def test_each_rejection_is_a_glomerulab_error_and_a_busy_server_sends_retry_after():
    busy = BusyError("too much", status=429, wait_s=7)
    assert (busy.status, busy.wait_s, str(busy)) == (429, 7, "too much")
    for error in (busy, JobStateError("x"), NoKeyError("x")):
        assert isinstance(error, GlomerulabError)
