import pytest

from glomerulab.stain.reference import PAPER, PRESETS, RECOMMENDED, StainParameters


def test_the_presets_are_what_their_names_say() -> None:
    assert PRESETS == {"recommended": RECOMMENDED, "paper": PAPER}
    assert (RECOMMENDED.sparsity, RECOMMENDED.coding_sparsity) == (0.02, 0.0)
    assert (PAPER.sparsity, PAPER.coding_sparsity) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "magic"),
        ("sparsity", -0.1),
        ("coding_sparsity", float("nan")),
        ("percentile", 20.0),
        ("glass_lightness", 0.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        StainParameters(**{name: value})
