from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cases.counting import group_glomeruli
from glomerulab.cases.grading import LabelCount, apply_rule_set, summarize_case
from glomerulab.cases.rules import BUILT_IN_RULE_SETS, load_rule_set
from tests.support.cases import PAPER, WITH_GLOBAL, case, one_call


def result(name, calls, taxonomy=PAPER, head="softmax"):
    glomeruli = group_glomeruli(calls, taxonomy, head=head)
    return apply_rule_set(load_rule_set(name), glomeruli, taxonomy)


def grade(name, calls, item=None, taxonomy=PAPER, head="softmax"):
    items = result(name, calls, taxonomy, head).items
    found = items[0] if item is None else next(one for one in items if one.item.id == item)
    return found.grade and found.grade.grade


@pytest.mark.parametrize(
    ("n_mesangial", "expected"), [(0, "M0"), (4, "M0"), (5, "M0"), (6, "M1"), (10, "M1")]
)
def test_m1_needs_more_than_half(n_mesangial: int, expected: str) -> None:
    calls = case((n_mesangial, "mspgn"), (10 - n_mesangial, "normal"))
    assert grade("mest_c_like", calls, "M") == expected


@pytest.mark.parametrize(
    ("n_crescents", "expected"), [(0, "C0"), (1, "C1"), (2, "C1"), (3, "C2"), (12, "C2")]
)
def test_c2_appears_at_exactly_a_quarter(n_crescents: int, expected: str) -> None:
    calls = case((n_crescents, "cgn"), (12 - n_crescents, "normal"))
    assert grade("mest_c_like", calls, "C") == expected


def test_one_sclerosed_segment_is_s1() -> None:
    assert grade("mest_c_like", case((1, "fsg"), (29, "normal")), "S") == "S1"
    assert grade("mest_c_like", case((30, "normal")), "S") == "S0"


def test_globally_sclerosed_glomeruli_leave_the_denominator() -> None:
    calls = case((3, "mspgn"), (2, "normal"), (5, "gs"), taxonomy=WITH_GLOBAL)
    answers = result("mest_c_like", calls, WITH_GLOBAL)
    m = answers.items[0]
    assert (m.n_with, m.n_of, m.grade and m.grade.grade) == (3, 5, "M1")
    assert not any("denominator" in text["en"] for text in m.warnings)
    without = result("mest_c_like", case((3, "mspgn"), (7, "normal"))).items[0]
    assert any("stay in the denominator" in text["en"] for text in without.warnings)


def test_items_not_assessed_are_listed_with_their_reason() -> None:
    answers = result("mest_c_like", case((10, "normal")))
    reasons = {one.item.id: one.not_assessed["en"] for one in answers.not_assessed}
    assert set(reasons) == {"E", "T"}
    assert "no label for endocapillary" in reasons["E"]
    assert "cortex" in reasons["T"]


def test_each_result_names_the_labels_it_is_based_on() -> None:
    answers = result("mest_c_like", case((10, "normal")))
    assert {one.item.id: one.labels for one in answers.items if one.grade} == {
        "M": ("mspgn",),
        "S": ("fsg",),
        "C": ("cgn",),
    }


@pytest.mark.parametrize(
    ("n", "expected", "enough"),
    [
        (0, "inadequate", False),
        (6, "inadequate", False),
        (7, "marginal", False),
        (8, "marginal", True),
        (9, "marginal", True),
        (10, "adequate", True),
    ],
)
def test_adequacy_at_its_boundaries(n: int, expected: str, enough: bool) -> None:
    assert grade("adequacy", case((n, "normal"))) == expected
    assert result("mest_c_like", case((n, "normal"))).has_enough is enough


def test_no_glomerulus_gives_no_grade() -> None:
    for name in BUILT_IN_RULE_SETS[1:]:
        assert {one.grade for one in result(name, []).items} == {None}


def test_only_globally_sclerosed_glomeruli_give_no_grade() -> None:
    m = result("mest_c_like", case((9, "gs"), taxonomy=WITH_GLOBAL), WITH_GLOBAL).items[0]
    assert m.grade is None
    assert m.not_assessed["en"] == "no glomerulus in the denominator"


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (((5, "gs"), (5, "normal")), "sclerotic"),  # exactly half: the flow chart asks first
        (((4, "gs"), (5, "normal"), (1, "cgn")), "focal"),
        (((5, "cgn"), (4, "normal"), (1, "gs")), "crescentic"),
        (((5, "cgn"), (5, "normal")), "focal"),
        (((4, "cgn"), (4, "normal"), (2, "gs")), "mixed"),
    ],
)
def test_berden_classes(groups, expected: str) -> None:
    assert grade("berden", case(*groups, taxonomy=WITH_GLOBAL), taxonomy=WITH_GLOBAL) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (((9, "gs"), (1, "normal")), "VI-like"),
        (((8, "gs"), (2, "normal")), "IV-like"),
        (((5, "cgn"), (5, "normal")), "IV-like"),
        (((4, "cgn"), (6, "normal")), "III-like"),
        (((1, "fsg"), (9, "mspgn")), "III-like"),
        (((1, "mspgn"), (9, "normal")), "II-like"),
        (((10, "normal"),), "none"),
    ],
)
def test_isn_rps_proportions(groups, expected: str) -> None:
    calls = case(*groups, taxonomy=WITH_GLOBAL)
    assert grade("isn_rps_like", calls, taxonomy=WITH_GLOBAL) == expected


@pytest.mark.parametrize(("n", "expected"), [(0, "none"), (9, "below 50 %"), (10, "50 % or more")])
def test_crescentic_at_exactly_half(n: int, expected: str) -> None:
    assert grade("crescentic_gn", case((n, "cgn"), (20 - n, "normal"))) == expected


@pytest.mark.parametrize(
    ("n", "expected"), [(4, "I"), (5, "II"), (9, "II"), (10, "III"), (14, "III"), (15, "IV")]
)
def test_h_grades_at_quarters(n: int, expected: str) -> None:
    calls = case((n, "fsg"), (20 - n, "mspgn"))
    assert grade("japanese_h_grade", calls) == f"H-Grade {expected}"


def test_a_glomerulus_with_two_lesions_counts_once() -> None:
    calls = case((5, "fsg+cgn"), (15, "normal"))
    h = result("japanese_h_grade", calls, head="sigmoid").items[0]
    assert (h.n_with, h.n_of) == (5, 20)


def test_uncertain_glomeruli_give_a_range_of_grades() -> None:
    calls = case((2, "cgn"), (9, "normal"))
    calls.append(one_call("x", "normal", either="normal+cgn"))
    c = next(one for one in result("mest_c_like", calls).items if one.item.id == "C")
    assert c.grade is not None
    assert c.grade.grade == "C1"
    assert [grade.grade for grade in c.possible] == ["C2", "C1"]


def test_an_image_that_may_show_no_glomerulus_makes_adequacy_uncertain() -> None:
    calls = [*case((9, "normal")), one_call("x", "normal", reasons=("out_of_distribution",))]
    answers = result("adequacy", calls)
    assert answers.n_range == (9, 10)
    assert [grade.grade for grade in answers.items[0].possible] == ["adequate", "marginal"]


EACH = tuple(frozenset({label_id}) for label_id in WITH_GLOBAL.label_ids)
ONE = st.sampled_from(["normal", "cgn", "fsg", "mspgn", "gs"])
DOUBT = st.tuples(ONE, st.sets(ONE, max_size=2), st.booleans())


@settings(max_examples=25)
@given(st.lists(DOUBT, min_size=1, max_size=4))
def test_the_possible_grades_are_those_of_every_choice_of_label_sets(drawn) -> None:
    calls = [
        one_call(
            f"x{place}",
            called,
            either="+".join(sorted(either)),
            reasons=("out_of_distribution",) if strange else (),
            taxonomy=WITH_GLOBAL,
        )
        for place, (called, either, strange) in enumerate(drawn)
    ]
    glomeruli = group_glomeruli(calls, WITH_GLOBAL, head="softmax")
    tried: dict[tuple[str, str], set[str]] = {}
    for world in product(*(one.possible_label_sets(EACH) for one in glomeruli)):
        corrections = {call.image_id: reading for call, reading in zip(calls, world, strict=True)}
        settled = group_glomeruli(calls, WITH_GLOBAL, head="softmax", corrections=corrections)
        for name in ("mest_c_like", "berden", "isn_rps_like"):
            for answer in apply_rule_set(load_rule_set(name), settled, WITH_GLOBAL).items:
                if answer.grade is not None:
                    tried.setdefault((name, answer.item.id), set()).add(answer.grade.grade)
    for name in ("mest_c_like", "berden", "isn_rps_like"):
        for answer in apply_rule_set(load_rule_set(name), glomeruli, WITH_GLOBAL).items:
            found = {grade.grade for grade in answer.possible}
            assert found == tried.get((name, answer.item.id), set())


def test_a_hundred_uncertain_glomeruli_are_graded() -> None:
    strange = [one_call(f"x{n}", reasons=("out_of_distribution",)) for n in range(100)]
    for name in BUILT_IN_RULE_SETS:
        for answer in result(name, strange, WITH_GLOBAL).items:
            assert answer.grade is None or answer.grade in answer.possible


def item_of(name, calls, item, taxonomy=WITH_GLOBAL):
    items = result(name, calls, taxonomy).items
    return next(one for one in items if one.item.id == item)


def counts_of(found) -> dict[str, int]:
    return {" or ".join(f.name for f in one.findings): one.n_with for one in found.counts}


def test_the_count_beside_a_grade_is_what_it_is_based_on() -> None:
    mesangial = item_of("isn_rps_like", case((3, "mspgn"), (7, "normal")), "proportion")
    assert (mesangial.grade.grade, mesangial.n_with, mesangial.n_of) == ("II-like", 3, 10)
    assert counts_of(mesangial) == {"Mesangial hypercellularity": 3}
    focal = item_of(
        "berden", case((5, "normal"), (3, "cgn"), (2, "fsg"), taxonomy=WITH_GLOBAL), "class"
    )
    assert (focal.grade.grade, focal.n_with, focal.n_of) == ("focal", 5, 10)
    assert item_of("mest_c_like", case((3, "mspgn"), (7, "normal")), "M").n_with == 3


def test_a_class_for_the_rest_shows_each_count_that_decided_against_the_others() -> None:
    calls = case((4, "normal"), (3, "cgn"), (2, "gs"), (1, "fsg"), taxonomy=WITH_GLOBAL)
    mixed = item_of("berden", calls, "class")
    assert (mixed.grade.grade, mixed.n_with) == ("mixed", None)
    assert counts_of(mixed) == {
        "Global sclerosis": 2,
        "Normal glomerulus": 4,
        "Cellular crescent": 3,
    }
    none = item_of("isn_rps_like", case((10, "normal"), taxonomy=WITH_GLOBAL), "proportion")
    assert list(counts_of(none)) == ["", "Global sclerosis", "Mesangial hypercellularity"]
    unlabelled = item_of("berden", case((4, "normal"), (6, "fsg")), "class", PAPER)
    assert "Global sclerosis" not in counts_of(unlabelled)


def test_berdens_counts_are_those_of_the_flow_chart_for_every_composition_of_ten() -> None:
    for n_gs, n_normal, n_cgn in product(range(11), repeat=3):
        n_other = 10 - n_gs - n_normal - n_cgn
        if n_other < 0:
            continue
        calls = case(
            (n_gs, "gs"),
            (n_normal, "normal"),
            (n_cgn, "cgn"),
            (n_other, "mspgn"),
            taxonomy=WITH_GLOBAL,
        )
        found = item_of("berden", calls, "class")
        if n_gs >= 5:
            expected = ("sclerotic", n_gs)
        elif n_normal >= 5:
            expected = ("focal", n_normal)
        elif n_cgn >= 5:
            expected = ("crescentic", n_cgn)
        else:
            expected = ("mixed", None)
        assert (found.grade.grade, found.n_with) == expected


def test_possible_grades_are_listed_without_a_grade() -> None:
    calls = [one_call(f"x{n}", "gs", either="gs+cgn", taxonomy=WITH_GLOBAL) for n in range(8)]
    found = item_of("mest_c_like", calls, "C")
    assert found.grade is None
    assert found.not_assessed["en"] == "no glomerulus in the denominator"
    assert [grade.grade for grade in found.possible] == ["C2"]
    assert item_of("mest_c_like", [], "C").possible == ()


def test_enough_glomeruli_are_perhaps_too_few_where_an_image_may_show_none() -> None:
    calls = [*case((7, "normal")), one_call("x", "normal", reasons=("out_of_distribution",))]
    expected = (
        "Perhaps only 7 of the 8 glomeruli that the source requires, given the uncertain ones."
    )
    assert result("mest_c_like", calls).too_few == expected
    assert result("mest_c_like", case((8, "normal"))).too_few == ""


def summary(calls, **further):
    glomeruli = group_glomeruli(calls, PAPER, head="softmax")
    return summarize_case(glomeruli, PAPER, [load_rule_set("mest_c_like")], **further)


def test_shares_come_with_wilson_intervals() -> None:
    counts = {one.label.id: one for one in summary(case((4, "cgn"), (12, "normal"))).labels}
    assert counts["cgn"].share == 0.25
    assert counts["cgn"].interval == pytest.approx((0.1018, 0.4950), abs=1e-4)


def test_uncertainty_widens_the_range_and_not_the_count() -> None:
    calls = [*case((2, "cgn")), one_call("x", "normal", either="normal+cgn")]
    counts = {one.label.id: one for one in summary(calls).labels}
    assert (counts["cgn"].n_with, counts["cgn"].n_range) == (2, (2, 3))
    assert (counts["normal"].n_with, counts["normal"].n_range) == (1, (0, 1))


def test_an_empty_case_is_no_error() -> None:
    empty = summary([])
    assert empty.n_glomeruli == 0
    assert {one.interval for one in empty.labels} == {None}


def test_a_reviewed_image_is_no_longer_referred() -> None:
    calls = [one_call("x", "cgn", reasons=("out_of_focus",)), one_call("y")]
    assert summary(calls).n_referred == 1
    assert summary(calls, reviewed=frozenset({"x"})).n_referred == 0


def test_sections_of_one_glomerulus_are_counted_once() -> None:
    calls = [one_call("a", slide="s1", region="g1"), one_call("b", slide="s2", region="g1")]
    counts = summary(calls)
    assert (counts.n_glomeruli, counts.n_images, counts.n_slides) == (1, 2, 2)
    assert counts.n_on_several_sections == 1


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe, Statist. Med. 17:857-872 (1998), Table I, method 3 (score, no correction)
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(k: int, n: int, low: float, high: float) -> None:
    assert LabelCount(PAPER.labels[0], k, n, (k, k)).interval == pytest.approx(
        (low, high), abs=5e-5
    )
