"""What a separation is made with: method, sparsity and percentile, as one frozen value.

Two presets have names: what was measured to be best, and what the paper and its peers use.
"""

import math
from dataclasses import dataclass
from typing import Literal

from glomerulab.stain.tissue import GLASS_LIGHTNESS

__all__ = ["PAPER", "PRESETS", "RECOMMENDED", "Method", "StainParameters"]

Method = Literal["vahadane", "macenko", "reinhard"]


@dataclass(frozen=True)
class StainParameters:
    """How stains are separated and matched."""

    method: Method = "vahadane"
    sparsity: float = 0.02
    """λ of the paper's eq. (9) while the stain matrix is sought."""
    coding_sparsity: float = 0.0
    """λ when the amounts are solved again for recolouring."""
    percentile: float = 99.0
    """Of each stain's amount over tissue; matched between source and target."""
    glass_lightness: float = GLASS_LIGHTNESS
    """CIE lightness relative to white from which a pixel is glass, in (0, 1]."""

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises
        ------
        ValueError
            If the method is unknown or a number is out of its range.
        """
        if self.method not in {"vahadane", "macenko", "reinhard"}:
            raise ValueError(f"method must be vahadane, macenko or reinhard, got {self.method!r}")
        for name in ("sparsity", "coding_sparsity"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value < 1.0):
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not 50.0 <= self.percentile <= 100.0:
            raise ValueError(f"percentile must be in [50, 100], got {self.percentile}")
        if not 0.0 < self.glass_lightness <= 1.0:
            raise ValueError(f"glass_lightness must be in (0, 1], got {self.glass_lightness}")


RECOMMENDED = StainParameters()
"""λ 0.02, and none when the amounts are solved again: closest to known truth."""

PAPER = StainParameters(sparsity=0.1, coding_sparsity=0.1)
"""λ 0.1 throughout, as Vahadane's publication and its re-implementations use."""

PRESETS = {"recommended": RECOMMENDED, "paper": PAPER}
"""By name, for the command line."""
