from glomerulab.cohort.near_duplicates import NearDuplicate
from glomerulab.reports.run.pictures import NO_PICTURES, Pictures


def test_pairs_across_parts_are_severe_and_the_first_are_named():
    pairs = tuple(NearDuplicate(f"a{n}", "test", f"b{n}", "train", n) for n in range(5))
    warning = Pictures(near_duplicates=pairs).warnings()[0]
    assert warning.severe
    assert warning.text.startswith("5 pairs")
    assert "'a2' (test) and 'b2' (train)" in warning.text
    assert "'a3'" not in warning.text
    assert warning.text.endswith("and 2 more.")


def test_looking_and_finding_nothing_is_not_the_same_as_not_looking():
    assert Pictures(near_duplicates=()).warnings() == ()
    assert NO_PICTURES.warnings()[0].title == "Near-duplicates not looked for"
