import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.apps.annotation.label_validation import (
    validate_content,
    validate_labels,
    validate_seconds,
)
from glomerulab.apps.annotation.records import AnnotationContent
from glomerulab.errors import AnnotationError
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")
FLAGS = st.dictionaries(st.sampled_from(PAPER.label_ids), st.sampled_from([0, 1, None]))


@given(FLAGS)
def test_labels_are_valid_unless_normal_is_set_beside_a_lesion(
    flags: dict[str, int | None],
) -> None:
    lesions = [name for name in ("mspgn", "fsg", "cgn") if flags.get(name) == 1]
    if flags.get("normal") == 1 and lesions:
        with pytest.raises(AnnotationError, match=r"normal and .* exclude each other"):
            validate_labels(flags, PAPER)
        return
    assert validate_labels(flags, PAPER) == {name: flags.get(name) for name in PAPER.label_ids}


@pytest.mark.parametrize("value", [2, -1, True, "1", 0.5])
def test_a_label_is_one_or_zero_or_unknown(value: object) -> None:
    with pytest.raises(AnnotationError, match="must be 1, 0 or unknown"):
        validate_labels({"cgn": value}, PAPER)


def test_an_unknown_label_is_named_with_those_there_are() -> None:
    with pytest.raises(AnnotationError, match=r"unknown label\(s\) tbm; known are normal, mspgn"):
        validate_labels({"tbm": 1}, PAPER)


def test_a_skip_needs_a_reason_and_no_label() -> None:
    with pytest.raises(AnnotationError, match="reason"):
        validate_content(AnnotationContent(skip_reason="  "), PAPER)
    with pytest.raises(AnnotationError, match="skipped image"):
        validate_content(AnnotationContent({"cgn": 0}, skip_reason="torn"), PAPER)
    assert validate_content(AnnotationContent(skip_reason=" torn "), PAPER).skip_reason == "torn"


def test_a_note_that_does_not_fit_the_database_is_rejected() -> None:
    with pytest.raises(AnnotationError, match="at most 4000"):
        validate_content(AnnotationContent(note="x" * 4001), PAPER)
    with pytest.raises(AnnotationError, match="NUL"):
        validate_content(AnnotationContent(note="a\x00b"), PAPER)


def test_the_time_spent_is_a_number_of_at_most_a_day() -> None:
    assert validate_seconds(1.23456) == 1.235
    assert validate_seconds(1e9) == 86_400.0
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(AnnotationError, match="time spent"):
            validate_seconds(wrong)
