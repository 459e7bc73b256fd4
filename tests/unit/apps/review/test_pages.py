from glomerulab.apps.review.pages import cases_page, message_page
from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from tests.support.cases import one_call, write_case


def test_the_list_shows_each_case_with_its_open_reviews(tmp_path):
    calls = [
        one_call("a", "cgn"),
        one_call("b", "fsg", either="normal+fsg", patient="<p 2>"),
        one_call("c", "normal", patient="<p 2>"),
    ]
    folder = read_case_folder(write_case(tmp_path, calls))
    add_correction(folder, "c", labels=["fsg"], by="A", reason="x")
    cases = {f"stem {place}": one for place, one in enumerate(build_cases(folder))}
    page = cases_page(cases, "en")
    assert '<a href="cases/stem%201/">&lt;p 2&gt;</a>' in page
    assert "<td>2 glomeruli: 2 segmental sclerosis</td><td>1</td><td>1</td>" in page
    assert "Research use only" in page
    assert "SYNTHETIC" in page
    assert "全部病例" in cases_page(cases, "zh")


def test_an_unreadable_picture_is_replaced_by_an_escaped_reason():
    page = message_page("no <b>", "zh")
    assert "no &lt;b&gt;" in page
    assert "仅供研究使用" in page
