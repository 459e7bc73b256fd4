"""Random requests never cause an internal error of a served model."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from tests.support.served_models import served, write_slide


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    with served(trained, folder, with_keys=True, with_slides=True) as one:
        write_slide(folder / "slides")
        yield one


def ask_everything(server, mode: GenerationMode, n_examples: int) -> tuple[int, set[int]]:
    """Call every operation; return their number and the statuses of the responses."""
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    client = server.client("anna")
    n_operations, statuses = 0, set()
    for result in schema.get_all_operations():
        operation = result.ok()
        n_operations += 1

        @settings(
            max_examples=n_examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def check(case):
            sent = case.as_transport_kwargs(base_url="http://testserver")
            made = dict(sent["headers"])
            sent["headers"] = {name: made[name] for name in made if name.lower() != "authorization"}
            sent.pop("cookies", None)
            if isinstance(sent.get("data"), bytes | str):
                sent["content"] = sent.pop("data")
            answer = client.request(**sent)
            statuses.add(answer.status_code)
            # 503 means that the server is busy, which does not happen here.
            assert answer.status_code < 500, (sent, answer.text)
            assert "X-Research-Use-Only" in answer.headers

        try:
            check()
        except Unsatisfiable:
            # An operation without parameters has no invalid request.
            assert mode is GenerationMode.NEGATIVE
    return n_operations, statuses


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_ends_in_an_error_of_the_server(server, mode):
    n_operations, statuses = ask_everything(server, mode, 15)
    assert n_operations == 12
    assert {200, 404, 422} <= statuses or mode is GenerationMode.NEGATIVE


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_of_very_many_ends_in_an_error_of_the_server(server, mode):
    n_operations, statuses = ask_everything(server, mode, 300)
    assert n_operations == 12
    assert max(statuses) < 500
