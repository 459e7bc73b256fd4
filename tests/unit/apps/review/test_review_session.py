import shutil

import pytest

from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.cases.corrections import CorrectionRow
from glomerulab.cases.rules import load_rule_set
from glomerulab.errors import PredictionsError, UnknownRecordError
from tests.support.cases import case, write_case

CHANGE = CorrectionRow("2026-11-25T10:00:00+00:00", "Dr Li", "x", "cgn", "seen")


def _n_with(session: ReviewSession, label: str) -> int:
    _state, found = session.case("p1")
    return next(one.n_with for one in found.summary.labels if one.label.id == label)


def test_a_change_is_counted_at_once_and_by_the_next_reader_of_the_folder(session, predictions):
    before = session.state()
    assert _n_with(session, "cgn") == 2
    assert session.add(CHANGE, n_seen=0) == 1
    assert _n_with(session, "cgn") == 3
    assert session.state() != before
    assert _n_with(ReviewSession(predictions), "cgn") == 3  # a program started anew


def test_a_change_that_another_program_made_is_counted_too(session, predictions):
    assert _n_with(session, "cgn") == 2
    ReviewSession(predictions).add(CHANGE, n_seen=0)
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
