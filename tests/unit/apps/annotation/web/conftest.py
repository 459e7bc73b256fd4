import pytest

from tests.support.annotation_web import open_web


@pytest.fixture
def web(tmp_path):
    made = open_web(tmp_path)
    yield made
    made.store.close()
