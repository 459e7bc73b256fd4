"""Random requests never cause an internal error of the annotation program."""

import pytest
import schemathesis
from argon2 import PasswordHasher
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from glomerulab.apps.annotation.store import accounts
from glomerulab.runtime.names import hashed_name
from tests.support.annotation_web import open_web

pytestmark = pytest.mark.slow

N_EXAMPLES = 25


@pytest.fixture
def web(tmp_path, make_slide, monkeypatch):
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "HASHER", quick)
    made = open_web(tmp_path, slides=make_slide())
    yield made
    made.store.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("login", ["anna", "owner"])
def test_no_request_ends_in_an_error_of_the_server(web, login, mode):
    document = web.app.openapi()
    schema = schemathesis.openapi.from_dict(document)
    n_operations, n_answers, statuses = 0, 0, set()
    for result in schema.get_all_operations():
        operation = result.ok()
        n_operations += 1

        # One example of a slide and an item that exist, so that requests get past the door.
        known = {"key": hashed_name("slide"), "place": 1, "assignment_id": 1, "login": "bo"}
        names = {parameter.name for parameter in operation.path_parameters}
        fixed = {name: known[name] for name in names & set(known)}
        strategy = operation.as_strategy(mode, **({"path_parameters": fixed} if fixed else {}))

        @settings(
            max_examples=N_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def check(case):
            nonlocal n_answers
            client = web.client(login)
            sent = case.as_transport_kwargs(base_url="http://testserver")
            sent["headers"] = {**dict(sent["headers"]), "X-CSRF-Token": client.token}
            sent.pop("cookies", None)
            if isinstance(sent.get("data"), bytes | str):
                sent["content"] = sent.pop("data")
            answer = client.request(**sent)
            n_answers += 1
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (sent, answer.text)

        try:
            check()
        except Unsatisfiable:
            # A page without parameters has no invalid request.
            assert mode is GenerationMode.NEGATIVE
            assert not [*operation.query, *operation.body]
    assert n_operations >= 25
    assert n_answers > n_operations * 5
    assert {200, 422} & statuses
