import socket
import stat

import pytest

from glomerulab.apps.review import server
from glomerulab.apps.review.server import announce, review
from glomerulab.errors import OutputError, PredictionsError


def test_the_terminal_prints_the_address_and_the_notice(session):
    printed = "\n".join(announce(session, "http://127.0.0.1:8000/secret/", n_cases=1))
    assert "1 case of" in printed
    assert "  http://127.0.0.1:8000/secret/" in printed
    assert "research use only" in printed
    assert "whoever has it can change calls" in printed


def test_a_folder_without_predictions_is_reported_before_the_server_listens(tmp_path):
    printed: list[str] = []
    with pytest.raises(PredictionsError, match=r"no case\.json"):
        review(tmp_path, port=0, language="en", echo=printed.append)
    assert printed == []


def test_a_taken_port_is_named(predictions):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port"):
            review(predictions, port=port, language="en", echo=print)


def test_the_browser_is_given_a_file_of_this_user_and_not_the_address(tmp_path, monkeypatch):
    given: list[str] = []
    monkeypatch.setattr(server.webbrowser, "open", given.append)
    server.open_browser_at("http://127.0.0.1:8000/secret/", tmp_path)
    (page,) = tmp_path.iterdir()
    assert given == [page.as_uri()]
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "url=http://127.0.0.1:8000/secret/" in page.read_text(encoding="utf-8")
