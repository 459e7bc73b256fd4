"""Cases made by hand: calls with stated readings, for rules, reports and formats."""

from glomerulab.calls import GlomerulusCall
from glomerulab.geometry import Box
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy

__all__ = ["PAPER", "WITH_GLOBAL", "case", "one_call"]

PAPER = load_taxonomy("paper")

WITH_GLOBAL = Taxonomy(
    "with_global",
    (*PAPER.labels, Label(id="gs", name="Global sclerosis", name_zh="球性硬化", hpo="HP:0004737")),
)


def one_call(
    name: str,
    called: str = "normal",
    *,
    either: str = "",
    reasons: tuple[str, ...] = (),
    taxonomy: Taxonomy = PAPER,
    slide: str = "s1",
    region: str | None = None,
    patient: str | None = "p1",
) -> GlomerulusCall:
    """Make a call; `called` and `either` are label ids joined by +."""
    labels = frozenset(filter(None, called.split("+")))
    unsure = frozenset(filter(None, either.split("+")))
    states = {
        key: "either" if key in unsure else "present" if key in labels else "absent"
        for key in taxonomy.label_ids
    }
    rest = len(taxonomy.labels) - len(labels)
    probabilities = {
        key: 0.9 / len(labels) if key in labels else 0.1 / rest for key in taxonomy.label_ids
    }
    number = sum(map(ord, name))
    return GlomerulusCall(
        name, slide, patient, region or name, "PAS", probabilities, labels, states,
        reasons or (("uncertain",) if unsure else ()),
        Box(100 + number % 700, 80 + number * 7 % 500, 120, 130),
    )  # fmt: skip


def case(*groups: tuple[int, str], taxonomy: Taxonomy = PAPER) -> list[GlomerulusCall]:
    """Make `n` certain calls of each label set."""
    return [
        one_call(f"{labels}-{place}", labels, taxonomy=taxonomy)
        for n, labels in groups
        for place in range(n)
    ]
