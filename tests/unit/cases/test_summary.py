import pytest

from glomerulab.cases.counting import group_glomeruli
from glomerulab.cases.rules import load_rule_set
from glomerulab.cases.summary import summarize_case
from tests.support.cases import PAPER, case, one_call


def summary(calls, **further):
    latest_corrections = further.pop("overruled", None)
    glomeruli = group_glomeruli(calls, PAPER, head="softmax", latest_corrections=latest_corrections)
    return summarize_case(glomeruli, PAPER, [load_rule_set("mest_c_like")], **further)


def test_shares_come_with_wilson_intervals() -> None:
    counts = {one.label.id: one for one in summary(case((4, "cgn"), (12, "normal"))).labels}
    assert counts["cgn"].share == 0.25
    assert counts["cgn"].interval == pytest.approx((0.1018, 0.4950), abs=1e-4)


def test_doubts_widen_the_counts_and_not_the_calls() -> None:
    calls = [*case((2, "cgn")), one_call("x", "normal", either="normal+cgn")]
    counts = {one.label.id: one for one in summary(calls).labels}
    assert (counts["cgn"].n_with, counts["cgn"].n_range) == (2, (2, 3))
    assert (counts["normal"].n_with, counts["normal"].n_range) == (1, (0, 1))


def test_an_empty_case_is_no_error() -> None:
    empty = summary([])
    assert empty.n_glomeruli == 0
    assert {one.interval for one in empty.labels} == {None}


def test_what_a_person_looked_at_is_no_longer_referred() -> None:
    calls = [one_call("x", "cgn", reasons=("out_of_focus",)), one_call("y")]
    assert summary(calls).n_referred == 1
    assert summary(calls, reviewed=frozenset({"x"})).n_referred == 0


def test_sections_of_one_glomerulus_are_counted_once_and_said() -> None:
    calls = [one_call("a", slide="s1", region="g1"), one_call("b", slide="s2", region="g1")]
    told = summary(calls)
    assert (told.n_glomeruli, told.n_images, told.n_slides) == (1, 2, 2)
    assert told.n_on_several_sections == 1
