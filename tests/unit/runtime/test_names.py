import pytest

from glomerulab.runtime.names import clean_id, clean_text, hashed_name, quoted_name, safe_name


@pytest.mark.parametrize("name", ["S23-0815_PAS.1", "王小明", "x" * 120])
def test_a_valid_file_name_stays_as_it_is(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["a/b", "a b", "../a", ".a", "", "..", "x" * 121, "王" * 121])
def test_a_changed_file_name_is_safe_short_and_unique(name):
    found = safe_name(name)
    others = {safe_name(one) for one in ("a_b", "_a", "a", "_", "x" * 120, "x" * 122, "王" * 122)}
    assert found not in others
    assert not set(found) & set("/ \\")
    assert not found.startswith(".")
    assert len(found.encode()) <= 129


def test_a_hashed_name_shows_nothing_of_the_original():
    assert len(hashed_name("Müller, Hans 系膜")) == 16
    assert hashed_name("../../etc/passwd").isalnum()


def test_a_quoted_name_has_no_separator():
    assert quoted_name("a/b c%") == "a%2Fb c%25"


def test_a_good_id_stays_as_it_is():
    assert clean_id("王小明 P/12") == "王小明 P/12"
    assert clean_id("x" * 64, most=64) == "x" * 64


@pytest.mark.parametrize(
    "name", ["a\\b", "a\tb", "a\x85b", " a_b", "a_b ", "", " ", "x" * 65, "王" * 65]
)
def test_a_changed_id_is_short_and_unique(name):
    found = clean_id(name, most=64, without="\\")
    others = {clean_id(one, most=64, without="\\") for one in ("a_b", "x" * 64, "x" * 66, "a/b")}
    assert found not in others
    assert found == found.strip() != ""
    assert len(found.encode()) <= 64  # some receivers count bytes
    assert not set(found) & set("\\\t\x85")


def test_a_text_keeps_its_lines_and_is_never_blank():
    assert clean_text("a\n\tb\x00c\x9b") == "a\n\tb\ufffdc\ufffd"
    assert clean_text(" ") == "-"
