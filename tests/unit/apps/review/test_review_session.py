import shutil
import socket
import stat

import pytest

from glomerulab.apps.review import server
from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.apps.review.server import announce, review
from glomerulab.cases.corrections import CorrectionRow
from glomerulab.cases.rules import load_rule_set
from glomerulab.errors import OutputError, PredictionsError, UnknownRecordError
from tests.support.cases import case, write_case
from tests.support.outlines import outlined_slide, write_outlines

CHANGE = CorrectionRow("2020-11-25T10:00:00+00:00", "Dr Li", "x", "cgn", "seen")


def _n_with(session: ReviewSession, label: str) -> int:
    _state, found = session.case("p1")
    return next(one.n_with for one in found.summary.labels if one.label.id == label)


def test_a_change_is_counted_at_once_and_by_the_next_reader_of_the_folder(session, predictions):
    before = session.state()
    assert _n_with(session, "cgn") == 2
    assert session.add("p1", CHANGE, n_seen=0) == 1
    assert _n_with(session, "cgn") == 3
    assert session.state() != before
    assert _n_with(ReviewSession(predictions), "cgn") == 3  # a program started anew


def test_outlines_grade_t_as_in_the_report(predictions, tmp_path):
    calls = ReviewSession(predictions).case("p1")[1].calls
    slides = sorted({call.slide_id for call in calls} - {""})
    write_outlines(tmp_path / "outlines", [outlined_slide(one, fibrosis=0.3) for one in slides])
    session = ReviewSession(predictions, structures=tmp_path / "outlines")
    for _ in range(2):  # a change keeps them
        rules = session.case("p1")[1].summary.rules
        (t,) = (one for rule in rules for one in rule.items if one.item.id == "T")
        assert t.grade is not None
        assert t.grade.grade == "T1"
        session.add("p1", CHANGE, n_seen=0)


def test_a_change_that_another_program_made_is_counted_too(session, predictions):
    assert _n_with(session, "cgn") == 2
    ReviewSession(predictions).add("p1", CHANGE, n_seen=0)
    assert _n_with(session, "cgn") == 3


def test_predictions_made_anew_are_read_anew(session, predictions):
    assert _n_with(session, "normal") == 7
    before = session.state()
    write_case(predictions, case((3, "normal")))
    assert session.state() != before
    assert _n_with(session, "normal") == 3


def test_only_the_requested_rules_are_applied(predictions):
    one = ReviewSession(predictions / "case.json", rule_sets=[load_rule_set("berden")])
    assert [rule.rule_set.id for rule in one.case("p1")[1].summary.rules] == ["berden"]


def test_missing_files_are_named(session, predictions):
    with pytest.raises(UnknownRecordError, match="no such case"):
        session.case("p2")
    shutil.rmtree(predictions)
    with pytest.raises(PredictionsError, match=r"holds no case\.json"):
        session.cases()


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
