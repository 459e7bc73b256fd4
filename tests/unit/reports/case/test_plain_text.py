import pytest

from glomerulab.reports.case.plain_text import clean_id, clean_text


def test_a_good_id_stays_as_it_is() -> None:
    assert clean_id("王小明 P/12") == "王小明 P/12"
    assert clean_id("x" * 64, most=64) == "x" * 64


@pytest.mark.parametrize(
    "lost", ["a\\b", "a\tb", "a\x85b", " a_b", "a_b ", "", " ", "x" * 65, "王" * 65]
)
def test_what_had_to_change_is_short_and_like_no_other(lost) -> None:
    found = clean_id(lost, most=64, without="\\")
    others = {clean_id(one, most=64, without="\\") for one in ("a_b", "x" * 64, "x" * 66, "a/b")}
    assert found not in others
    assert found == found.strip() != ""
    assert len(found.encode()) <= 64  # some receivers count bytes
    assert not set(found) & set("\\\t\x85")


def test_a_text_keeps_its_lines_and_is_never_blank() -> None:
    assert clean_text("a\n\tb\x00c\x9b") == "a\n\tb\ufffdc\ufffd"
    assert clean_text(" ") == "-"
