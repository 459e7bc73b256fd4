"""Which lesions a glomerulus has, how marked, and the labels that follow."""

from dataclasses import dataclass

import numpy as np

__all__ = ["KINDS", "Lesions", "draw_lesions", "kind_schedule"]

KINDS: dict[str, tuple[str, ...]] = {
    "normal": ("normal",),
    "mspgn": ("mspgn",),
    "fsg": ("fsg",),
    "cgn": ("cgn",),
    "fsg+cgn": ("fsg", "cgn"),
}
"""Kinds of glomerulus that can be rendered, and the labels of each."""

# Out of 20 glomeruli: the combination is rarer, as it is in biopsies.
MIX = {"normal": 6, "mspgn": 4, "fsg": 4, "cgn": 4, "fsg+cgn": 2}

PLAINEST = 1.0


@dataclass(frozen=True, slots=True)
class Lesions:
    """How marked each lesion is: 0 absent, else from just past its definition to 1, plain."""

    mspgn: float = 0.0
    fsg: float = 0.0
    cgn: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a severity outside 0 to 1."""
        for name in ("mspgn", "fsg", "cgn"):
            severity = getattr(self, name)
            if not 0.0 <= severity <= PLAINEST:
                raise ValueError(f"severity of {name} must be from 0 to 1, got {severity}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Ids of the labels of the taxonomy ``paper``, in its order."""
        present = tuple(name for name in ("mspgn", "fsg", "cgn") if getattr(self, name) > 0)
        return present or ("normal",)


def draw_lesions(kind: str, rng: np.random.Generator) -> Lesions:
    """Draw how marked the lesions of a kind are.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    rng : Generator

    Returns
    -------
    Lesions
        Severities spread evenly from 0.1 (subtle) to 1 (plain).

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    severities = {name: float(rng.uniform(0.1, PLAINEST)) for name in ("mspgn", "fsg", "cgn")}
    return Lesions(**{name: s for name, s in severities.items() if name in KINDS[kind]})


def kind_schedule(n: int, rng: np.random.Generator) -> list[str]:
    """Say of which kind each of n glomeruli is, in random order and in fixed proportions.

    Parameters
    ----------
    n : int
        At least 0. Each run of 20 holds 6 normal, 4 of each single lesion and 2 combinations.
    rng : Generator
        Knows nothing of patients: the kind is independent of stain, scanner and patient.

    Returns
    -------
    list of str
    """
    block = [kind for kind, count in MIX.items() for _ in range(count)]
    kinds: list[str] = []
    while len(kinds) < n:
        kinds += [block[place] for place in rng.permutation(len(block))]
    return kinds[:n]
