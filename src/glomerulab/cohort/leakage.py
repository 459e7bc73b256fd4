"""Images that would let a model be judged on what it has learned from."""

from collections.abc import Mapping

from glomerulab.cohort.manifest import Manifest

__all__ = ["find_leaks"]

ORIGINS = {"parent_id": "parent", "partner_id": "mixup partner"}
"""Columns that name another image of which this one holds pixels."""


def find_leaks(manifest: Manifest) -> list[str]:
    """Tell which patients, and which copies, stand in two parts of a split.

    Parameters
    ----------
    manifest : Manifest
        Images without a part count as unused.

    Returns
    -------
    list of str
        One sentence per kind of leak with its count and first example; empty if there is none.
    """
    used = manifest.with_table(manifest.table[manifest.table["split"].notna()])
    part_of = dict(zip(used.table["image_id"], used.table["split"], strict=True))
    copies = (_divided_copies(used, column, name, part_of) for column, name in ORIGINS.items())
    return [leak for leak in (_divided_patients(used), *copies) if leak is not None]


def _divided_patients(used: Manifest) -> str | None:
    parts = used.table.dropna(subset=["patient_id"]).groupby("patient_id")["split"].unique()
    divided = parts[parts.map(len) > 1]
    if divided.empty:
        return None
    first, where = str(divided.index[0]), ", ".join(sorted(map(str, divided.iloc[0])))
    return f"patients in several parts: {len(divided)}, such as {first!r} in {where}"


def _divided_copies(
    used: Manifest, column: str, name: str, part_of: Mapping[object, object]
) -> str | None:
    if column not in used.table:
        return None
    copies = used.table[used.table[column].isin(list(part_of))]
    origins = copies[column].map(part_of)
    divided = copies[(copies["split"] != origins).to_numpy(dtype=bool)]
    if divided.empty:
        return None
    row = divided.iloc[0]
    return (
        f"copies in another part than their {name}: {len(divided)}, such as "
        f"{row['image_id']!r} in {row['split']} with {row[column]!r} in {part_of[row[column]]}"
    )
