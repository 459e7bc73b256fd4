"""Import a cohort from a folder of images, by its subfolders or by a pattern of the paths."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from glomerulab.cohort.manifest import (
    TAXONOMY_FILE,
    Manifest,
    manifest_from_rows,
    read_manifest,
)
from glomerulab.cohort.schema import MANIFEST_COLUMNS, STAINS
from glomerulab.errors import ConfigError, ManifestError, TaxonomyError
from glomerulab.runtime.tables import nfc
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy

__all__ = ["import_folder", "read_images"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Compared in lower case."""

MANIFEST_FILE = "manifest.csv"
LABEL_FIELD = "label"
IGNORED_FIELD = "n"
PATTERN_FIELDS = (*(name for name in MANIFEST_COLUMNS if name != "image_path"), LABEL_FIELD)


def import_folder(
    root: Path,
    taxonomy: Taxonomy,
    *,
    pattern: str | None = None,
    classes: Mapping[str, str] | None = None,
    values: Mapping[tuple[str, str], str] | None = None,
    labelled: bool = True,
) -> Manifest:
    """Build a manifest from a folder of images.

    Parameters
    ----------
    root : Path
        Holds images at any depth. Subfolders are named after labels (id, English or Chinese name),
        unless `pattern` says otherwise; images without subfolders have no known label.
    taxonomy : Taxonomy
        The label of the folder is 1, all others are 0.
    pattern : str, optional
        Of the last parts of each path, such as ``case{patient_id}_{stain}_{n}.png`` or
        ``{patient_id}/{label}/*``. A field is a manifest column, ``label``, or ``n``, which is
        ignored; ``*`` stands for any characters but ``/``. Case does not matter, and the suffix
        may be left out.
    classes : mapping of str to str, optional
        Name of a class in the paths to label id, where they differ.
    values : mapping of (str, str) to str, optional
        (manifest column, value in the paths) to value, such as ``("stain", "sil")`` to ``"PASM"``.
    labelled : bool, default True
        Whether subfolders are classes; False leaves every label unknown, wherever the images lie.

    Returns
    -------
    Manifest
        In the order of the paths. `image_id` is the path below `root` without suffix; patients
        are known by a pattern only.

    Raises
    ------
    ManifestError
        If there is no image, an image does not match the pattern or lies beside class folders, or
        two images would have the same id.
    ConfigError
        If the pattern has an unknown field.
    TaxonomyError
        If a class is no label.
    """
    if not root.is_dir():
        raise ManifestError("this is not a folder of images", where=str(root))
    found = None if pattern is None else _compiled(pattern, values or {})
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
    )
    if not paths:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ManifestError(f"the folder holds no image ({known})", where=str(root))
    _check_unique_ids(paths)
    below = [path.relative_to(root) for path in paths]
    rows: list[dict[str, str | int]] = [
        {"image_id": path.with_suffix("").as_posix(), "image_path": path.as_posix()}
        for path in below
    ]
    names: list[str | None] = [None] * len(below)
    if labelled:
        is_needed = found is None
        names = _class_folders(below, root, taxonomy, is_needed=is_needed, classes=classes or {})
    if found is not None:
        fields = _matches(below, found, str(pattern), root)
        names = [one.pop(LABEL_FIELD, name) for one, name in zip(fields, names, strict=True)]
        for row, one in zip(rows, fields, strict=True):
            row |= {name: (values or {}).get((name, cell), cell) for name, cell in one.items()}
    for row, name, path in zip(rows, names, below, strict=True):
        if name is not None:
            label = _label(name, taxonomy, classes or {}, where=str(root / path))
            row |= {label_id: int(label_id == label.id) for label_id in taxonomy.label_ids}
    return manifest_from_rows(pd.DataFrame(rows), folder=root, taxonomy=taxonomy)


def read_images(path: Path, taxonomy: Taxonomy | None = None) -> Manifest:
    """Read a manifest, or make one of the images of a folder, for people to label.

    Parameters
    ----------
    path : Path
        A manifest; a folder with a ``manifest.csv``; or a folder of images at any depth, whose
        labels and patients stay unknown.
    taxonomy : Taxonomy, optional
        As for `read_manifest`; of a folder, its ``taxonomy.toml``.
    """
    if not path.is_dir():
        return read_manifest(path, taxonomy)
    if (path / MANIFEST_FILE).is_file():
        return read_manifest(path / MANIFEST_FILE, taxonomy)
    if taxonomy is None:
        beside = path / TAXONOMY_FILE
        taxonomy = load_taxonomy(beside if beside.is_file() else "paper")
    return import_folder(path, taxonomy, labelled=False)


def _check_unique_ids(paths: list[Path]) -> None:
    """Refuse ``a.png`` beside ``a.jpg``, which would have the same id."""
    first: dict[Path, Path] = {}
    for path in paths:
        other = first.setdefault(path.with_suffix(""), path)
        if other != path:
            raise ManifestError(
                f"the image would have the same id as {other.name} beside it; rename one, or "
                "remove it if it is the same picture",
                where=str(path),
            )


def _class_folders(
    paths: list[Path],
    root: Path,
    taxonomy: Taxonomy,
    *,
    is_needed: bool,
    classes: Mapping[str, str],
) -> list[str | None]:
    """Return the class folder of each image, or None for all where the folders are no classes."""
    folders = [path.parts[0] if len(path.parts) > 1 else None for path in paths]
    if not any(folders):
        return folders
    outside = next((path for path, one in zip(paths, folders, strict=True) if one is None), None)
    if outside is not None:
        if not is_needed:
            return [None] * len(paths)
        raise ManifestError(
            "the image is outside the class folders; move it into one, or describe the paths with "
            "--pattern",
            where=str(root / outside),
        )
    try:
        for name in dict.fromkeys(folders):
            _label(str(name), taxonomy, classes, where=str(root / str(name)))
    except TaxonomyError:
        if is_needed:
            raise
        return [None] * len(paths)
    return folders


def _label(name: str, taxonomy: Taxonomy, classes: Mapping[str, str], *, where: str) -> Label:
    try:
        return taxonomy.find(classes.get(nfc(name), nfc(name)))
    except TaxonomyError as error:
        raise TaxonomyError(
            f"{error.message} (taxonomy {taxonomy.name!r}); choose another with --taxonomy, map it "
            "with --class NAME=LABEL, or, if it is no label, describe the paths with --pattern, "
            "such as '{patient_id}/*'",
            where=where,
        ) from error


def _compiled(pattern: str, values: Mapping[tuple[str, str], str]) -> re.Pattern[str]:
    """Return the pattern as a regular expression with one group per field."""
    known = (*PATTERN_FIELDS, IGNORED_FIELD)
    parts: list[str] = []
    fields: set[str] = set()
    for literal, field, star in re.findall(r"([^{}*]+)|\{([^{}]*)\}|(\*+)", pattern):
        if literal:
            parts.append(re.escape(nfc(literal)))
        elif star:
            parts.append("[^/]*")
        elif field == IGNORED_FIELD:
            parts.append("[^/]+?")
        elif field not in known:
            raise ConfigError(
                f"the pattern has the unknown field {field!r}; the fields are {', '.join(known)}",
                where="--pattern",
            )
        elif field in fields:
            parts.append(f"(?P={field})")
        else:
            fields.add(field)
            parts.append(f"(?P<{field}>{_cell(field, values)})")
    if pattern.count("{") != pattern.count("}") or not fields:
        raise ConfigError(
            "the pattern must name a field in braces, such as 'case{patient_id}_{stain}_{n}.png'; "
            f"the fields are {', '.join(known)}",
            where="--pattern",
        )
    has_suffix = Path(pattern).suffix.lower() in IMAGE_SUFFIXES or pattern.endswith("*")
    end = "" if has_suffix else r"\.[^./]+"
    return re.compile("(?:.*/)?" + "".join(parts) + end, re.IGNORECASE)


def _cell(field: str, values: Mapping[tuple[str, str], str]) -> str:
    """Return what a field matches: a stain is one of the known, anything else is short."""
    if field != "stain":
        return "[^/]+?"
    names = [*STAINS, *(old for column, old in values if column == "stain")]
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _matches(
    paths: list[Path], pattern: re.Pattern[str], text: str, root: Path
) -> list[dict[str, str]]:
    """Return the fields of each path; stains as they are written in a manifest."""
    found = [pattern.fullmatch(nfc(path.as_posix())) for path in paths]
    missed = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missed:
        stains = f"; stains are {', '.join(STAINS)}" if "{stain}" in text else ""
        raise ManifestError(
            f"{len(missed)} of {len(paths)} images do not match the pattern {text!r}, such as "
            f"{missed[0].as_posix()!r}; change the pattern (* stands for anything) or move these "
            f"images elsewhere{stains}",
            where=str(root),
        )
    stains_by_key = {name.casefold(): name for name in STAINS}
    rows = [match.groupdict() for match in found if match is not None]
    for row in rows:
        if "stain" in row:
            row["stain"] = stains_by_key.get(row["stain"].casefold(), row["stain"])
    return rows
