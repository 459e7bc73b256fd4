"""Data leakage: images that connect the training part with the held-out parts."""

import filecmp
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import (
    DISTINCT_COLUMN,
    NORMALIZED_FROM_COLUMN,
    STAIN_TARGET_COLUMN,
    TARGET_LEAK_COLUMN,
)
from glomerulab.errors import LeakageError, ManifestError, StainError
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.names import look_alike_key
from glomerulab.runtime.tables import nfc

if TYPE_CHECKING:
    from glomerulab.stain.reference import StainReference

__all__ = [
    "TargetLeak",
    "check_look_alikes",
    "check_target_leaks",
    "check_target_stains",
    "confirm_distinct",
    "find_leaks",
    "find_target_leaks",
    "leaked_targets",
    "look_alike_message",
    "look_alike_patients",
    "patients_in_several_parts",
    "recheck_target_leaks",
    "recorded_paths",
    "target_leak_parts",
]

ORIGINS = {"parent_id": "parent", "partner_id": "mixup partner"}
"""Columns that name another image of which this one holds pixels."""
HELD_OUT_PARTS = ("test", "validation")  # the worse leak first

Mask = npt.NDArray[np.bool_]


def patients_in_several_parts(
    table: pd.DataFrame, column: str = "split"
) -> dict[str, tuple[str, ...]]:
    """Find the patients with images in more than one part.

    Parameters
    ----------
    table : DataFrame
        Of a manifest. Rows without patient_id or without a part are ignored.
    column : str, default "split"
        Holds the part: "split" or "fold".

    Returns
    -------
    dict of str to tuple of str
        Sorted names of the parts by patient_id, in the order of the ids.
    """
    known = table[["patient_id", column]].dropna()
    parts = known.groupby("patient_id")[column].unique()
    return {
        str(patient): tuple(sorted(map(str, found)))
        for patient, found in parts.items()
        if len(found) > 1
    }


def look_alike_patients(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Find patient ids that probably mean one patient, such as ``P7`` and ``p7``.

    Parameters
    ----------
    table : DataFrame
        Of a manifest. Ids that `confirm_distinct` marked are left out, if all of a group are.

    Returns
    -------
    list of tuple of str
        Sorted ids of each group, two or more; see `glomerulab.runtime.names.look_alike_key`.
    """
    ids = table["patient_id"].dropna().astype(str)
    confirmed: set[str] = set()
    if DISTINCT_COLUMN in table:
        flags = table.loc[ids.index, DISTINCT_COLUMN].astype("string")
        confirmed = set(ids[flags.isin(["1", "1.0"]).to_numpy(dtype=bool)])
    groups: dict[str, list[str]] = {}
    for name in sorted(set(ids)):
        groups.setdefault(look_alike_key(name), []).append(name)
    return [
        tuple(names) for names in groups.values() if len(names) > 1 and not confirmed >= set(names)
    ]


def look_alike_message(names: Sequence[str]) -> str:
    """Return what is wrong with patient ids that look alike, and the ways out."""
    text = " and ".join(map(repr, names))
    return (
        f"the patient ids {text} look alike: give one patient one id (`glomerulab manifest import "
        f"--value patient_id:OLD=NEW` does), or confirm that they are different patients with "
        f"`glomerulab split --distinct {','.join(names)}`"
    )


def check_look_alikes(manifest: Manifest) -> None:
    """Raise a `LeakageError` if patient ids look alike and were not confirmed as distinct."""
    found = look_alike_patients(manifest.table)
    if found:
        rest = f"; {len(found) - 1} more groups look alike" if len(found) > 1 else ""
        raise LeakageError(look_alike_message(found[0]) + rest, where=manifest.location)


def confirm_distinct(manifest: Manifest, patients: Collection[str]) -> Manifest:
    """Mark patients as different from those with similar ids, in the column `DISTINCT_COLUMN`.

    Raises
    ------
    ManifestError
        If the manifest has no such patient.
    """
    wanted = {nfc(name) for name in patients}
    ids = manifest.table["patient_id"]
    unknown = sorted(wanted - set(ids.dropna()))
    if unknown:
        raise ManifestError(
            f"the manifest has no patient {', '.join(map(repr, unknown))}; name patients to "
            "confirm as the table has them",
            where=manifest.location,
        )
    empty = pd.Series(pd.NA, index=ids.index, dtype="string")
    flags = manifest.table.get(DISTINCT_COLUMN, empty).astype("string")
    chosen = ids.isin(wanted).to_numpy(dtype=bool)
    return manifest.with_table(manifest.table.assign(**{DISTINCT_COLUMN: flags.mask(chosen, "1")}))


def find_leaks(manifest: Manifest) -> list[str]:
    """Find patients, and augmented copies, that are divided between parts of a split.

    Parameters
    ----------
    manifest : Manifest
        Images without a part count as unused.

    Returns
    -------
    list of str
        One sentence per kind of leak with its count and first example; empty if there is none.
    """
    used = manifest.table[manifest.table["split"].notna()]
    leaks = []
    divided = patients_in_several_parts(used)
    if divided:
        first, parts = next(iter(divided.items()))
        leaks.append(
            f"{count_noun(len(divided), 'patient has', 'patients have')} images in several parts, "
            f"such as {first!r} in {', '.join(parts)}"
        )
    leaks += [look_alike_message(names) for names in look_alike_patients(used)[:1]]
    part_of = dict(zip(used["image_id"], used["split"], strict=True))
    copies = (_divided_copies(used, column, name, part_of) for column, name in ORIGINS.items())
    return leaks + [leak for leak in copies if leak is not None]


def _divided_copies(
    used: pd.DataFrame, column: str, name: str, part_of: Mapping[object, object]
) -> str | None:
    if column not in used:
        return None
    copies = used[used[column].isin(list(part_of))]
    origins = copies[column].map(part_of)
    divided = copies[(copies["split"] != origins).to_numpy(dtype=bool)]
    if divided.empty:
        return None
    row = divided.iloc[0]
    return (
        f"{count_noun(len(divided), 'copy is', 'copies are')} in another part than the {name}, "
        f"such as {row['image_id']!r} in {row['split']} with {row[column]!r} "
        f"in {part_of[row[column]]}"
    )


@dataclass(frozen=True, slots=True)
class TargetLeak:
    """A stain target from an image, or a patient, of the test or the validation part."""

    stain: str
    source: str
    """The image or slide that the target was fitted on, as its reference names it."""
    part: str
    """``test`` or ``validation``."""
    image_id: str
    """An image of that part: the target itself, or another of its patient."""
    patient_id: str = ""
    """Set where not the target itself is in the part, but another image of its patient."""

    def __str__(self) -> str:
        """Name the image, the consequence and the way out."""
        origin = (
            f"patient {self.patient_id!r}, whose image {self.image_id!r} is in the {self.part} part"
            if self.patient_id
            else f"image {self.image_id!r} of the {self.part} part"
        )
        return (
            f"the target for {self.stain}, {self.source}, comes from {origin}: held-out data would "
            "shape what the model learns from. Choose a training image, or give several, whose "
            "mean is then the target"
        )


def find_target_leaks(
    manifest: Manifest, targets: "Mapping[str, StainReference]"
) -> dict[str, TargetLeak]:
    """Find the stain targets that were taken from the test or the validation part.

    Parameters
    ----------
    targets : mapping of str to StainReference
        By stain.

    Returns
    -------
    dict of str to TargetLeak
        The worst leak of each stain: test before validation, the image before its patient. A
        source is matched by image_id, by slide_id, or as a file with the same content; a source
        without a match is not reported.
    """
    if not manifest.table["split"].isin(HELD_OUT_PARTS).any():
        return {}
    found = {stain: next(_leaks_of(manifest, one), None) for stain, one in sorted(targets.items())}
    return {stain: leak for stain, leak in found.items() if leak is not None}


def check_target_leaks(manifest: Manifest, leaks: Mapping[str, TargetLeak]) -> None:
    """Raise a `LeakageError` for the first leak, if there is one."""
    for leak in leaks.values():
        raise LeakageError(str(leak), where=manifest.location)


def check_target_stains(manifest: Manifest, targets: "Mapping[str, StainReference]") -> None:
    """Raise a `ManifestError` for a target that the manifest lists under another stain."""
    stains = manifest.table["stain"]
    for stain, target in targets.items():
        for name in _sources(target):
            others = _rows_of(name, manifest) & _mask(stains.notna() & (stains != stain))
            if others.any():
                row = int(np.flatnonzero(others)[0])
                image_id, listed = manifest.table["image_id"].iloc[row], stains.iloc[row]
                raise ManifestError(
                    f"the target for {stain}, {name}, is image {image_id!r}, which the manifest "
                    f"lists as {listed}; give it as the target for {listed}, or correct the "
                    "column stain",
                    where=manifest.location,
                )


def recheck_target_leaks(manifest: Manifest) -> tuple[Manifest, dict[str, TargetLeak]]:
    """Check the targets of a normalised manifest against a new split.

    Returns
    -------
    Manifest
        With the column ``stain_target_leak`` filled anew; unchanged if no target is recorded.
    dict of str to TargetLeak
        By stain. Targets whose file is missing are left as they were.
    """
    from glomerulab.stain.reference import read_reference

    table = manifest.table
    if STAIN_TARGET_COLUMN not in table:
        return manifest, {}
    table = table.copy()
    if TARGET_LEAK_COLUMN not in table:
        table[TARGET_LEAK_COLUMN] = pd.array([None] * len(table), dtype="string")
    paths = recorded_paths(manifest, STAIN_TARGET_COLUMN)
    leaks: dict[str, TargetLeak] = {}
    for path in sorted({path for path in paths if path is not None}):
        try:
            target = read_reference(path)
        except StainError:  # moved or deleted: the former result is kept
            continue
        found = find_target_leaks(manifest, {target.stain: target})
        leaks |= found
        part = found[target.stain].part if found else pd.NA
        table.loc[[one == path for one in paths], TARGET_LEAK_COLUMN] = part
    return manifest.with_table(table), leaks


def recorded_paths(manifest: Manifest, column: str) -> list[Path | None]:
    """Return the file that a column of a normalised manifest names for each image, or None.

    `normalize` writes ``images`` and ``targets`` side by side; the paths start from their parent,
    wherever the manifest was copied to since.
    """
    return [
        None if pd.isna(name) else image.parent.parent / str(name)
        for image, name in zip(manifest.image_paths(), manifest.table[column], strict=True)
    ]


def target_leak_parts(manifest: Manifest) -> list[str]:
    """Return the held-out parts that stain targets were taken from, as `normalize` noted them."""
    if TARGET_LEAK_COLUMN not in manifest.table:
        return []
    return sorted(set(manifest.table[TARGET_LEAK_COLUMN].dropna()))


def leaked_targets(manifest: Manifest) -> dict[str, str]:
    """Return the names of the stain targets that were taken from each held-out part."""
    table, named = manifest.table, {}
    for part in target_leak_parts(manifest):
        rows = table[_mask(table[TARGET_LEAK_COLUMN] == part)]
        names = [str(stain) for stain in rows["stain"].dropna().unique()]
        if "stain_target" in rows:
            known = rows.dropna(subset=["stain", "stain_target"])
            pairs = dict.fromkeys(zip(known["stain"], known["stain_target"], strict=True))
            names = [f"{stain}, {source}," for stain, source in pairs]
        named[part] = f"the stain target for {' and '.join(names) or 'some images'}"
    return named


def _leaks_of(manifest: Manifest, target: "StainReference") -> Iterator[TargetLeak]:
    """Yield the leaks of one target, the worst first."""
    table = manifest.table
    rows = {name: _rows_of(name, manifest) for name in _sources(target)}
    for part in HELD_OUT_PARTS:
        inside = _mask(table["split"] == part)
        for name, own in rows.items():
            for row in np.flatnonzero(own & inside):
                yield TargetLeak(target.stain, name, part, str(table["image_id"].iloc[row]))
        for name, own in rows.items():
            of_patients = _mask(table["patient_id"].isin(table["patient_id"][own].dropna()))
            for row in np.flatnonzero(of_patients & inside):
                image_id, patient_id = table[["image_id", "patient_id"]].iloc[row]
                yield TargetLeak(target.stain, name, part, str(image_id), str(patient_id))


def _sources(target: "StainReference") -> list[str]:
    names = [target.source]
    if target.n_sources > 1:  # the source of a mean lists its members
        names += target.source.split(", ")
    return [name for name in names if name]


def _rows_of(name: str, manifest: Manifest) -> Mask:
    """Mark the images that a source is or holds, or that were normalised from it."""
    table = manifest.table
    named = _mask(table["image_id"] == name) | _mask(table["slide_id"] == name)
    size = _size(Path(name))
    if size is None:
        return named
    paths = manifest.image_paths()
    if NORMALIZED_FROM_COLUMN in table:
        originals = recorded_paths(manifest, NORMALIZED_FROM_COLUMN)
        paths = [original or path for path, original in zip(paths, originals, strict=True)]
    same: Mask = np.array(
        [_size(path) == size and _is_same(Path(name), path) for path in paths], dtype=np.bool_
    )
    return named | same


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # missing, not permitted, or not a valid path
        return None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # an unreadable image is reported for its own row
        return False


def _mask(column: "pd.Series[bool]") -> Mask:
    mask: Mask = column.fillna(value=False).to_numpy(dtype=bool)
    return mask
