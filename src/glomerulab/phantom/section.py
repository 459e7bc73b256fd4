"""How a patient's section was prepared: everything that is nuisance and not disease."""

from dataclasses import dataclass, replace

import numpy as np

from glomerulab.phantom.materials import Stain
from glomerulab.phantom.scanner import Scanner, draw_scanner
from glomerulab.phantom.stains import StainMatrix, draw_stain_matrix

__all__ = ["SCANNERS", "Section", "draw_section", "scanner_park"]

SCANNERS = 4
"""Number of scanners in a cohort."""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One stained section of one patient on one scanner."""

    stain: Stain
    stain_matrix: StainMatrix
    scanner: Scanner
    thickness: float = 1.0
    """Factor on both concentrations; 0 is a blank tile."""
    first_strength: float = 1.0
    """Factor on haematoxylin; 0 leaves a single stain."""
    second_strength: float = 1.0
    """Factor on eosin or periodic acid-Schiff; 0 leaves a single stain."""
    nuclei_kept: float = 1.0
    """Share of the nuclei that are painted; 0.05 is the hard case of few nuclei."""
    radius_um: float = 85.0
    """Mean radius of the patient's glomeruli."""
    tubule_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.stain not in {"HE", "PAS"}:
            raise ValueError(f"stain must be HE or PAS, got {self.stain!r}")
        if self.stain_matrix.shape != (3, 2):
            raise ValueError(f"stain_matrix must have shape (3, 2), got {self.stain_matrix.shape}")
        for name in ("thickness", "first_strength", "second_strength"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name} must be from 0 to 10, got {getattr(self, name)}")
        if not 0 <= self.nuclei_kept <= 1:
            raise ValueError(f"nuclei_kept must be from 0 to 1, got {self.nuclei_kept}")
        if not 40 <= self.radius_um <= 150:
            raise ValueError(f"radius_um must be from 40 to 150, got {self.radius_um}")
        if not 0.5 <= self.tubule_scale <= 1.6:
            raise ValueError(f"tubule_scale must be from 0.5 to 1.6, got {self.tubule_scale}")

    def with_white(self, white: tuple[float, float, float]) -> "Section":
        """Return the same section before another background."""
        return replace(self, scanner=replace(self.scanner, white=white))


def scanner_park(seed: int) -> tuple[Scanner, ...]:
    """Return the scanners of a cohort.

    Parameters
    ----------
    seed : int
        Of the cohort.

    Returns
    -------
    tuple of Scanner
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    return tuple(draw_scanner(f"phantom-scanner-{n + 1}", rng) for n in range(SCANNERS))


def draw_section(
    stain: Stain, rng: np.random.Generator, *, scanner: Scanner, radius_um: float | None = None
) -> Section:
    """Draw how a section was prepared; nothing here depends on what disease it shows.

    Parameters
    ----------
    stain : {"HE", "PAS"}
    rng : Generator
    scanner : Scanner
    radius_um : float, optional
        Mean radius of the patient's glomeruli; drawn if left out.

    Returns
    -------
    Section
    """
    return Section(
        stain=stain,
        stain_matrix=draw_stain_matrix(stain, rng),
        scanner=scanner,
        thickness=float(rng.uniform(0.75, 1.25)),
        first_strength=float(rng.uniform(0.8, 1.25)),
        second_strength=float(rng.uniform(0.75, 1.25)),
        radius_um=float(rng.uniform(72.0, 98.0)) if radius_um is None else radius_um,
        tubule_scale=float(rng.uniform(0.9, 1.12)),
    )
