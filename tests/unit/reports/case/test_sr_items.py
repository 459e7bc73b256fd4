from glomerulab.reports.case.sr_items import label_code, own, percent, readings, text, uid
from glomerulab.taxonomy import Label
from tests.support.cases import PAPER


def test_a_long_code_stays_whole_and_its_meaning_is_cut() -> None:
    code = own("isn_rps_like/1.0/proportion", "Glomeruli " * 20)
    assert code.LongCodeValue == "isn_rps_like/1.0/proportion"
    assert "CodeValue" not in code
    assert len(code.meaning) == 64
    assert code.meaning.endswith("...")
    assert len(own("a", "肾" * 30).meaning.encode()) <= 64


def test_a_meaning_has_no_backslash_and_no_line_break() -> None:
    assert own("a", "one\\two\n three\x00").meaning == "one/two three\ufffd"


def test_a_label_without_code_has_one_of_ours() -> None:
    code = label_code(Label(id="scar", name="Scar"))
    assert (code.value, code.scheme_designator) == ("is/scar", "99GLOMERULAB")


def test_what_shows_nothing_says_so() -> None:
    said = [readings(own("a", "a"), one, PAPER)[0].value for one in (None, frozenset())]
    assert [one.value for one in said] == ["not_a_glomerulus", "none"]


def test_a_share_is_in_percent() -> None:
    found = percent("a", "a", 1 / 3)
    assert (found.value, found.unit.value) == (33.33, "%")


def test_a_text_is_whole_and_without_control_characters() -> None:
    assert text("a", "a", "x" * 3000 + "\x1b").TextValue == "x" * 3000 + "\ufffd"


def test_names_that_read_alike_when_joined_have_other_uids() -> None:
    assert uid("a/b", "c") != uid("a", "b/c")
    assert uid("a") == uid("a")
