from glomerulab.apps.serve.errors import BusyError, JobStateError, NoKeyError
from glomerulab.errors import GlomerulabError


def test_each_rejection_is_a_glomerulab_error_and_a_busy_server_sends_retry_after():
    busy = BusyError("too much", status=429, wait_s=7)
    assert (busy.status, busy.wait_s, str(busy)) == (429, 7, "too much")
    for error in (busy, JobStateError("x"), NoKeyError("x")):
        assert isinstance(error, GlomerulabError)
