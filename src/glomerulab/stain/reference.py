"""Parameters of a separation, priors of the known stains, and fitted references as JSON.

Each stain is two dyes, listed with the one of higher red absorbance first; every stain matrix of
the package has this order.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from glomerulab.errors import StainError
from glomerulab.runtime.files import atomic_write, read_json
from glomerulab.stain.optical_density import GLASS_LIGHTNESS, FloatArray, Triple, triple

__all__ = [
    "PAPER",
    "PRESETS",
    "RECOMMENDED",
    "STAIN_PRIORS",
    "StainParameters",
    "StainReference",
    "aggregate",
    "read_reference",
    "reference_from_json",
    "write_reference",
]

FORMAT = "glomerulab-stain-reference-1"

Method = Literal["vahadane", "macenko", "reinhard"]


MIN_SEPARATION_DEGREES = 10.0
"""Minimal angle between the two columns of a stain matrix; below it they are one stain."""


@dataclass(frozen=True)
class StainParameters:
    """Parameters of separation and matching."""

    method: Method = "vahadane"
    sparsity: float = 0.02
    """λ of the paper's eq. (9) in the fit of the stain matrix."""
    coding_sparsity: float = 0.0
    """λ in the second solution of the amounts, for recolouring."""
    percentile: float = 99.0
    """Percentile of each stain's amount over tissue that is matched between source and target."""
    glass_lightness: float = GLASS_LIGHTNESS
    """CIE lightness relative to white from which a pixel is glass, in (0, 1]."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown method or a number out of range."""
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
"""λ 0.02 in the fit and 0 in recolouring: closest to the known truth of synthetic images."""

PAPER = StainParameters(sparsity=0.1, coding_sparsity=0.1)
"""λ 0.1 throughout, as Vahadane's publication and its re-implementations use."""

PRESETS = {"recommended": RECOMMENDED, "paper": PAPER}
"""By name, for the command line."""


@dataclass(frozen=True)
class StainPrior:
    """The two dyes of a stain and the tolerated deviation of an image from them."""

    stain: str
    dyes: tuple[str, str]
    """Names of the columns."""
    vectors: tuple[Triple, Triple]
    """Absorbance in red, green, blue of each dye, any length."""
    max_angle_degrees: tuple[float, float]
    """Maximal angle between each column and its dye."""

    @property
    def stain_matrix(self) -> FloatArray:
        """Columns of unit norm, shape (3, 2)."""
        columns = np.array(self.vectors, dtype=np.float64).T
        unit: FloatArray = columns / np.linalg.norm(columns, axis=0)
        return unit


HAEMATOXYLIN = (0.61, 0.71, 0.35)
EOSIN = (0.15, 0.93, 0.35)
# Midway between the two published pairs: Ruifrok & Johnston 2001 (as in ImageJ) and Macenko 2009.
# Schiff, silver and trichrome: means over public renal sections (decision 0041).

STAIN_PRIORS = {
    prior.stain: prior
    for prior in (
        StainPrior("HE", ("haematoxylin", "eosin"), (HAEMATOXYLIN, EOSIN), (26.0, 30.0)),
        StainPrior(
            "PAS",
            ("haematoxylin", "periodic acid-Schiff"),
            (HAEMATOXYLIN, (0.34, 0.89, 0.29)),
            (26.0, 26.0),
        ),
        StainPrior(
            "PASM", ("silver", "eosin"), ((0.59, 0.62, 0.52), (0.20, 0.91, 0.35)), (26.0, 22.0)
        ),
        StainPrior(
            "TRI",
            ("aniline blue", "ponceau-fuchsin"),
            ((0.76, 0.59, 0.27), (0.18, 0.81, 0.55)),
            (30.0, 30.0),
        ),
        StainPrior(
            "H-DAB",
            ("haematoxylin", "diaminobenzidine"),
            (HAEMATOXYLIN, (0.27, 0.57, 0.78)),
            (26.0, 30.0),
        ),
    )
}
"""By stain, as in the column ``stain`` of a manifest."""


def stain_prior(stain: str) -> StainPrior:
    """Return the prior of a stain; raise `StainError` for one that is not in `STAIN_PRIORS`."""
    prior = STAIN_PRIORS.get(stain)
    if prior is None:
        known = ", ".join(STAIN_PRIORS)
        raise StainError(f"unknown stain {stain!r} (known: {known})")
    return prior


@dataclass(frozen=True)
class StainReference:
    """Stain matrix, amounts and white of an image, and the parameters of their fit."""

    stain: str
    """HE, PAS, PASM, TRI or H-DAB."""
    stain_vectors: tuple[Triple, Triple]
    """Absorbance of each dye in red, green, blue; unit norm, higher red first."""
    percentiles: tuple[float, float]
    """The upper percentile of each dye's amount over tissue, above 0."""
    white: Triple
    """Grey level of unstained glass."""
    source: str = ""
    """The file or slide it was fitted to."""
    parameters: StainParameters = RECOMMENDED
    objective: float | None = None
    """Eq. (9) at the solution per tissue pixel; None for aggregates and other methods."""
    n_tissue_px: int = 0
    n_sources: int = 1
    lab_mean: Triple | None = None
    """Mean CIELAB colour of tissue; only for Reinhard's method."""
    lab_std: Triple | None = None
    trusts_stain: bool = False
    """Whether images are taken to be of this stain without a test of their colours."""

    def __post_init__(self) -> None:
        """Raise `StainError` for an unknown stain or a number out of range."""
        stain_prior(self.stain)
        for vector in self.stain_vectors:
            # Plain numbers: creating arrays would take longer than recolouring a small image.
            if not all(math.isfinite(value) and value >= 0.0 for value in vector):
                self._reject(f"stain_vectors must be numbers >= 0, got {vector}")
            if abs(math.hypot(*vector) - 1.0) > 1e-6:
                self._reject(f"stain_vectors must have unit norm, got {vector}")
        if not all(math.isfinite(value) and value > 0.0 for value in self.percentiles):
            self._reject(f"percentiles must be above 0, got {self.percentiles}")
        if not all(0.0 < level <= 255.0 for level in self.white):
            self._reject(f"white must be in (0, 255], got {self.white}")

    def _reject(self, message: str) -> NoReturn:
        raise StainError(message, where=self.source or None)

    @property
    def stain_matrix(self) -> FloatArray:
        """W, shape (3, 2), one column per dye."""
        return np.array(self.stain_vectors, dtype=np.float64).T


def aggregate(references: Sequence[StainReference], *, source: str = "") -> StainReference:
    """Merge the references of several images of one stain into one.

    Parameters
    ----------
    references : sequence of StainReference
        At least one, all of one stain and fitted with the same parameters.
    source : str, default ""
        Name of the merged reference.

    Returns
    -------
    StainReference
        Mean stain vectors weighted by tissue and brought back to unit norm; weighted mean
        percentiles; median white.

    Raises
    ------
    StainError
        If there are none, or they differ in stain or parameters.

    Notes
    -----
    To fit one set of stains to the pixels of many images at once, see
    `glomerulab.stain.fitting.fit_many`.
    """
    if not references:
        raise StainError("there are no stain references to merge", where=source or None)
    for name in ("stain", "parameters"):
        kinds = {str(getattr(reference, name)) for reference in references}
        if len(kinds) > 1:
            raise StainError(
                f"the stain references differ in {name}: {', '.join(sorted(kinds))}",
                where=source or None,
            )
    weights = np.array([max(reference.n_tissue_px, 1) for reference in references], np.float64)
    vectors = np.array([reference.stain_vectors for reference in references])  # (k, 2, 3)
    mean = np.average(vectors, axis=0, weights=weights)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    percentiles = np.average([r.percentiles for r in references], axis=0, weights=weights)
    white = np.median([reference.white for reference in references], axis=0)
    first = references[0]
    return StainReference(
        stain=first.stain,
        stain_vectors=(triple(mean[0]), triple(mean[1])),
        percentiles=(float(percentiles[0]), float(percentiles[1])),
        white=triple(white),
        source=source,
        parameters=first.parameters,
        n_tissue_px=sum(reference.n_tissue_px for reference in references),
        n_sources=sum(reference.n_sources for reference in references),
        lab_mean=_mean([r.lab_mean for r in references], weights),
        lab_std=_mean([r.lab_std for r in references], weights),
        trusts_stain=all(reference.trusts_stain for reference in references),
    )


def _mean(colours: Sequence[Triple | None], weights: FloatArray) -> Triple | None:
    if any(colour is None for colour in colours):
        return None
    return triple(np.average(np.array(colours), axis=0, weights=weights))


def write_reference(reference: StainReference, path: Path) -> None:
    """Write a reference as JSON, in place of any file at `path`."""
    text = json.dumps({"format": FORMAT, **asdict(reference)}, indent=2, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_reference(path: Path) -> StainReference:
    """Read a reference from JSON.

    Raises
    ------
    StainError
        If the file is missing, is no stain reference, or holds invalid numbers.
    """
    content = read_json(path, "stain reference", error=StainError)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise StainError(f"this is not a stain reference (no format {FORMAT!r})", where=str(path))
    try:
        return reference_from_json(content)
    except (KeyError, TypeError, ValueError, StainError) as error:
        raise StainError(f"the stain reference is invalid: {error!r}", where=str(path)) from error


def reference_from_json(content: Mapping[str, Any]) -> StainReference:
    """Return the reference whose fields `dataclasses.asdict` returned."""
    values = dict(content)
    values["parameters"] = StainParameters(**values["parameters"])
    first, second = values["stain_vectors"]
    values["stain_vectors"] = (triple(first), triple(second))
    low, high = values["percentiles"]
    values["percentiles"] = (float(low), float(high))
    values["white"] = triple(values["white"])
    for name in ("lab_mean", "lab_std"):
        values[name] = None if values.get(name) is None else triple(values[name])
    return StainReference(**values)
