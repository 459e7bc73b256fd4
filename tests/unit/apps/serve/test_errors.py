from glomerulab.apps.serve.errors import BusyError, JobStateError, NoKeyError
from glomerulab.errors import GlomerulabError


def test_each_refusal_is_one_of_ours_and_a_busy_server_says_how_long_to_wait():
    busy = BusyError("too much", status=429, wait_s=7)
    assert (busy.status, busy.wait_s, str(busy)) == (429, 7, "too much")
    for error in (busy, JobStateError("x"), NoKeyError("x")):
        assert isinstance(error, GlomerulabError)
