import socket

import pytest

from glomerulab.errors import OutputError, PredictionsError
from glomerulab.review.server import announce, review


def test_the_terminal_gives_the_address_and_what_it_is_not(desk):
    said = "\n".join(announce(desk, "http://127.0.0.1:8000/secret/", n_cases=1))
    assert "1 case of" in said
    assert "  http://127.0.0.1:8000/secret/" in said
    assert "research use only" in said
    assert "whoever has it may change calls" in said


def test_a_folder_without_predictions_is_told_before_anything_listens(tmp_path):
    said: list[str] = []
    with pytest.raises(PredictionsError, match=r"no case\.json"):
        review(tmp_path, port=0, language="en", tell=said.append)
    assert said == []


def test_a_taken_port_is_named(predictions):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port"):
            review(predictions, port=port, language="en", tell=print)
