import pytest

from tests.support.served_models import served


@pytest.fixture(scope="module")
def open_server(trained, tmp_path_factory):
    """A server of crops without keys."""
    with served(trained, tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def keyed(trained, tmp_path_factory):
    """A server that asks for keys and takes slides."""
    folder = tmp_path_factory.mktemp("served")
    with served(trained, folder, with_keys=True, with_slides=True) as one:
        yield one
