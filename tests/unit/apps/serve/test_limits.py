import pytest

from glomerulab.apps.serve.settings import Limits
from tests.support.served_models import served


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
def test_every_limit_is_a_positive_number(name):
    assert getattr(Limits(), name) > 0


def test_a_server_enforces_its_limits(trained, tmp_path):
    with served(trained, tmp_path, upload_bytes=1000) as one:
        answer = one.client().post("/v1/crops", content=bytes(1001))
        assert answer.status_code == 413
        assert one.client().post("/v1/crops", content=bytes(1000)).status_code == 422
