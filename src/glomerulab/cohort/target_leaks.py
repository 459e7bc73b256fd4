"""Stain targets that come from images a model will be judged on.

A reference names what it was fitted on: files, or a slide. That is looked for in the manifest.
"""

import filecmp
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import TARGET_LEAK_COLUMN
from glomerulab.errors import LeakageError
from glomerulab.stain.reference import StainReference

__all__ = ["TargetLeak", "find_target_leaks", "leaking_parts", "refuse_target_leaks"]

JUDGED_PARTS = ("test", "validation")  # the worse first

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TargetLeak:
    """A stain target from an image, or a patient, of the test or the validation part."""

    stain: str
    source: str
    """What the target was fitted on, as its reference names it."""
    part: str
    """``test`` or ``validation``."""
    image_id: str
    """An image of that part: the target itself, or another of its patient."""
    patient_id: str = ""
    """Given where not the target itself stands in the part, but another image of its patient."""

    def __str__(self) -> str:
        """Name the image, what follows, and the way out."""
        where = (
            f"patient {self.patient_id!r}, whose image {self.image_id!r} stands in the {self.part} "
            "part"
            if self.patient_id
            else f"image {self.image_id!r} of the {self.part} part"
        )
        return (
            f"the target for {self.stain}, {self.source}, comes from {where}: what a model is "
            "judged on would shape what it learns from. Choose a training image, or give several, "
            "whose mean is then the target"
        )


def find_target_leaks(
    manifest: Manifest, targets: Mapping[str, StainReference]
) -> dict[str, TargetLeak]:
    """Find the targets that were taken from the test or the validation part.

    Parameters
    ----------
    manifest : Manifest
    targets : mapping of str to StainReference
        By stain.

    Returns
    -------
    dict of str to TargetLeak
        By stain, of each the worst: test before validation, the image before its patient. A
        source is found by image_id, by slide_id, or as a file with the same content; one that is
        none of these cannot be judged.
    """
    split = manifest.table["split"]
    if not split.isin(JUDGED_PARTS).any():
        return {}
    found = {stain: next(_leaks(manifest, one), None) for stain, one in sorted(targets.items())}
    return {stain: leak for stain, leak in found.items() if leak is not None}


def leaking_parts(manifest: Manifest) -> list[str]:
    """Return the parts that targets were taken from, as `normalize` noted them in a manifest.

    Parameters
    ----------
    manifest : Manifest

    Returns
    -------
    list of str
        Of ``test`` and ``validation``; empty where the targets are training images, or there are
        none.
    """
    if TARGET_LEAK_COLUMN not in manifest.table:
        return []
    return sorted(set(manifest.table[TARGET_LEAK_COLUMN].dropna()))


def refuse_target_leaks(manifest: Manifest, leaks: Mapping[str, TargetLeak]) -> None:
    """Raise the first leak, if there is one.

    Parameters
    ----------
    manifest : Manifest
        Named in the message.
    leaks : mapping of str to TargetLeak

    Raises
    ------
    LeakageError
        If there is a leak.
    """
    for leak in leaks.values():
        raise LeakageError(str(leak), where=manifest.place)


def _leaks(manifest: Manifest, target: StainReference) -> Iterator[TargetLeak]:
    """Give what speaks against a target, the worst first."""
    table = manifest.table
    names = [target.source]
    if target.n_sources > 1:  # a mean lists what it was made of
        names += target.source.split(", ")
    rows = {name: _rows_of(name, manifest) for name in names if name}
    for part in JUDGED_PARTS:
        inside = _mask(table["split"] == part)
        for name, own in rows.items():
            for row in np.flatnonzero(own & inside):
                yield TargetLeak(target.stain, name, part, str(table["image_id"].iloc[row]))
        for name, own in rows.items():
            of_patients = _mask(table["patient_id"].isin(table["patient_id"][own].dropna()))
            for row in np.flatnonzero(of_patients & inside):
                image_id, patient_id = table[["image_id", "patient_id"]].iloc[row]
                yield TargetLeak(target.stain, name, part, str(image_id), str(patient_id))


def _rows_of(name: str, manifest: Manifest) -> Mask:
    """Mark the images that a source is or holds."""
    table = manifest.table
    named = _mask(table["image_id"] == name) | _mask(table["slide_id"] == name)
    size = _size(Path(name))
    if size is None:
        return named
    same: Mask = np.array(
        [_size(path) == size and _is_same(Path(name), path) for path in manifest.image_paths()]
    )
    return named | same


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # no such file, none that may be looked at, or no path at all
        return None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # cannot be read, which its own row will tell
        return False


def _mask(column: "pd.Series[bool]") -> Mask:
    mask: Mask = column.fillna(value=False).to_numpy(dtype=bool)
    return mask
