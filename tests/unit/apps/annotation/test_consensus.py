import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.apps.annotation.consensus import (
    differing_labels,
    final_labels,
    majority_labels,
    soft_labels,
)
from glomerulab.taxonomy import load_taxonomy
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, image_readings

PAPER = load_taxonomy("paper")
BOTH = {"normal": 0, "mspgn": 0, "fsg": 1, "cgn": 1}
MESANGIAL = {"normal": 0, "mspgn": 1, "fsg": 0, "cgn": 0}

READING = st.one_of(
    st.just(NORMAL),
    st.fixed_dictionaries(
        {"normal": st.sampled_from([0, None])}
        | {name: st.sampled_from([0, 1, None]) for name in ("mspgn", "fsg", "cgn")}
    ),
)


def test_readers_differ_where_one_sets_what_another_denies() -> None:
    assert differing_labels([CRESCENT, BOTH], PAPER) == ("fsg",)
    assert differing_labels([NORMAL, BOTH], PAPER) == ("normal", "fsg", "cgn")
    assert differing_labels([CRESCENT, {"cgn": None}], PAPER) == ()
    assert differing_labels([CRESCENT], PAPER) == ()


def test_a_majority_is_more_than_half_of_the_votes() -> None:
    assert majority_labels([CRESCENT, BOTH, SCLEROSIS], PAPER) == BOTH
    assert majority_labels([CRESCENT, CRESCENT, NORMAL], PAPER) == CRESCENT
    assert majority_labels([CRESCENT, NORMAL], PAPER) is None
    unknown = majority_labels([{"cgn": 1}, {"cgn": 1, "fsg": 0}], PAPER)
    assert unknown == {"normal": 0, "mspgn": None, "fsg": 0, "cgn": 1}


def test_a_label_that_is_set_denies_those_that_it_excludes() -> None:
    assert differing_labels([{"normal": 1}, {"cgn": 1}], PAPER) == ("normal", "cgn")
    assert soft_labels([{"normal": 1}, {"cgn": 1}], PAPER) == {
        "normal": 0.5,
        "mspgn": 0.0,
        "fsg": 0.0,
        "cgn": 0.5,
    }


def test_three_readers_with_three_lesions_do_not_make_an_image_without() -> None:
    assert majority_labels([CRESCENT, SCLEROSIS, MESANGIAL], PAPER) is None
    nothing = dict.fromkeys(PAPER.label_ids, 0)
    assert majority_labels([nothing, nothing, CRESCENT], PAPER) == nothing


@given(st.lists(READING, min_size=1, max_size=7))
def test_a_majority_never_sets_what_excludes_each_other_nor_labels_without_votes(
    readings: list[dict[str, int | None]],
) -> None:
    labels = majority_labels(readings, PAPER)
    if labels is None:
        return
    assert PAPER.conflicts(labels) == []
    for label_id, value in labels.items():
        votes = [PAPER.implied(reading)[label_id] for reading in readings]
        against = [vote for vote in votes if vote is not None and vote != value]
        assert (value is None) == all(vote is None for vote in votes)
        assert value is None or votes.count(value) > len(against)


@given(st.lists(READING, min_size=1, max_size=7))
def test_a_soft_label_is_the_share_of_votes(readings: list[dict[str, int | None]]) -> None:
    for label_id, share in soft_labels(readings, PAPER).items():
        given_flags = [PAPER.implied(reading)[label_id] for reading in readings]
        votes = [flag for flag in given_flags if flag is not None]
        assert share == (pytest.approx(sum(votes) / len(votes)) if votes else None)


def test_an_image_is_final_when_adjudicated_or_when_enough_readers_agree() -> None:
    unknown = dict.fromkeys(PAPER.label_ids)
    cases = [
        (image_readings([CRESCENT, CRESCENT]), CRESCENT, "agreed"),
        (image_readings([CRESCENT]), unknown, "incomplete"),
        (image_readings([]), unknown, "incomplete"),
        (image_readings([CRESCENT, NORMAL]), unknown, "disagreed"),
        (image_readings([CRESCENT, NORMAL], settled=SCLEROSIS), SCLEROSIS, "consensus"),
        (image_readings([{"cgn": 1}, CRESCENT]), unknown, "incomplete"),
        (image_readings([{"cgn": 1}, CRESCENT, CRESCENT]), CRESCENT, "agreed"),
        (image_readings([{"normal": 1}, NORMAL]), NORMAL, "agreed"),
        (image_readings([{"normal": 1}, {"cgn": 1}]), unknown, "disagreed"),
        (image_readings([CRESCENT, NORMAL], settled=CRESCENT, based_on=(1,)), unknown, "stale"),
        (image_readings([CRESCENT, CRESCENT], settled=NORMAL, based_on=(1,)), unknown, "stale"),
    ]
    for one, labels, basis in cases:
        assert final_labels(one, PAPER, n_readers=2) == (labels, basis)


def test_an_adjudication_is_stale_once_its_readings_change() -> None:
    assert not image_readings([CRESCENT, NORMAL], settled=CRESCENT).stale
    assert image_readings([CRESCENT, NORMAL], settled=CRESCENT, based_on=(1,)).stale
    assert not image_readings([CRESCENT, NORMAL]).stale
