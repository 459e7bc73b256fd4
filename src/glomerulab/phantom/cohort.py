"""A synthetic cohort on disk: what its crops and its slides share."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from glomerulab.errors import ConfigError
from glomerulab.phantom.glomerulus import kind_schedule
from glomerulab.phantom.stains import Stain
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track

__all__ = ["parse_stains"]

NOTICE = "synthetic phantom, not clinical data; research use only"
"""Part of every file of truth."""


@dataclass(frozen=True, slots=True)
class Task:
    """One image of a cohort, to be rendered and written."""

    number: int
    patient: int
    stain: Stain

    @property
    def patient_id(self) -> str:
        """Numbered from 1."""
        return f"phantom-p{self.patient + 1:03d}"


AnyTask = TypeVar("AnyTask", bound=Task)


def parse_stains(text: str) -> tuple[Stain, ...]:
    """Read the names of stains.

    Parameters
    ----------
    text : str
        ``HE``, ``PAS`` or both, separated by a comma.

    Returns
    -------
    tuple of {"HE", "PAS"}

    Raises
    ------
    ConfigError
        If another name is given, or none.
    """
    known: dict[str, Stain] = {"HE": "HE", "PAS": "PAS"}
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"stains must be HE, PAS or both, got {text!r}")
    return tuple(known[name] for name in names)


def check_cohort(counts: dict[str, int], stains: Sequence[Stain]) -> None:
    """Raise `ConfigError` unless every count is at least 1 and the stains are known."""
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"the number of {name} must be at least 1, got {value}")
    unknown = sorted(set(stains) - {"HE", "PAS"})
    if unknown or not stains:
        raise ConfigError(f"stains must be HE, PAS or both, got {', '.join(unknown) or 'none'}")


def check_mpp(mpp: float) -> None:
    """Raise `ValueError` unless an image can be rendered at this resolution."""
    if not (math.isfinite(mpp) and 0.05 <= mpp <= 8.0):
        raise ValueError(f"mpp must be from 0.05 to 8, got {mpp}")


def draw_kinds(n_glomeruli: int, *, seed: int, stream: int) -> list[str]:
    """Draw the kind of every glomerulus of a cohort, from a random stream of its own."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
    return kind_schedule(n_glomeruli, rng)


def render_rows(
    write: Callable[[AnyTask], dict[str, Any]],
    tasks: Sequence[AnyTask],
    title: str,
    *,
    n_workers: int,
    track: Track,
) -> pd.DataFrame:
    """Render and write every image, and return their rows in the order of the tasks."""
    rows: dict[int, dict[str, Any]] = {}
    outcomes = map_outcomes(write, tasks, n_workers=n_workers)
    for outcome in track(outcomes, title, len(tasks)):
        if outcome.error is not None:
            raise outcome.error
        rows[outcome.item.number] = outcome.value or {}
    return pd.DataFrame([rows[task.number] for task in tasks])


def write_truth(path: Path, truth: dict[str, Any]) -> None:
    """Write a file of truth as JSON, marked as synthetic."""
    text = json.dumps({"synthetic": True, "notice": NOTICE, **truth}, indent=1)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
