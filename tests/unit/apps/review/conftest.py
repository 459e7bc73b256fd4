from pathlib import Path

import pytest
from starlette.testclient import TestClient

from glomerulab.apps.review.app import create_app
from glomerulab.apps.review.review_session import ReviewSession
from tests.support.cases import case, one_call, write_case

SECRET = "the-secret"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Ten glomeruli of one patient, of which one is in doubt."""
    calls = [*case((7, "normal"), (2, "cgn")), one_call("x", "fsg", either="normal+fsg")]
    return write_case(tmp_path / "predictions", calls)


@pytest.fixture
def session(predictions: Path) -> ReviewSession:
    return ReviewSession(predictions)


@pytest.fixture
def client(session: ReviewSession) -> TestClient:
    """A browser of this computer, at the address with the secret."""
    app = create_app(session, secret=SECRET, language="en")
    return TestClient(app, base_url=f"http://127.0.0.1/{SECRET}/", raise_server_exceptions=False)
