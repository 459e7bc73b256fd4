"""The label files of the paper (Fig. 5b): one JSON object per image, with Chinese keys.

An object holds ``image_name`` and, by the Chinese name of each label, 1 or 0. It is read as one
object, as a list, as one object per line (with or without the figure's brackets), or as a folder
of such files.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.runtime.files import atomic_write, make_folder, read_utf8
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = ["import_paper_labels", "write_paper_labels"]

IMAGE_KEY = "image_name"

FIGURE_ORDER = ("normal", "fsg", "mspgn", "cgn")
"""Labels in the order of the figure, which differs from that of the paper's tables."""

SEPARATORS = " \t\r\n,[]"

Cell = str | int | None


def import_paper_labels(
    path: Path, taxonomy: Taxonomy, *, image_root: Path | None = None
) -> Manifest:
    """Build a manifest from the paper's label JSON.

    Parameters
    ----------
    path : Path
        A UTF-8 file, or a folder whose ``.json`` files are read in the order of their names.
    taxonomy : Taxonomy
        Its Chinese names (or English names, or ids) are the keys.
    image_root : Path, optional
        Base of the image names; by default the folder of the file, or `path` itself if it is a
        folder.

    Returns
    -------
    Manifest
        In the order of the objects. `image_id` is the name without suffix. A label that is null
        or missing is unknown; so are patients.

    Raises
    ------
    ManifestError
        If a file is not JSON, an object has no image name or a value other than 1, 0 and null;
        the message names the file and the object.
    TaxonomyError
        If a key is not a label.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ManifestError("the folder holds no .json file", where=str(path))
    rows = [
        _row(one, taxonomy, f"{file}: object {number}")
        for file in files
        for number, one in enumerate(_objects(file), start=1)
    ]
    if not rows:
        raise ManifestError("the label file holds no JSON object", where=str(path))
    folder = image_root if image_root is not None else path if path.is_dir() else path.parent
    frame = pd.DataFrame(rows, columns=["image_id", "image_path", *taxonomy.label_ids])
    try:
        return manifest_from_rows(frame, folder=folder, taxonomy=taxonomy)
    except ManifestError as error:
        raise ManifestError(error.message, where=str(path)) from error


def write_paper_labels(manifest: Manifest, path: Path) -> None:
    """Write labels as the paper's JSON; reading and writing it again gives the same bytes.

    Parameters
    ----------
    manifest : Manifest
        The file name and labels of each image are written, an unknown label as null.
    path : Path
        Ends in ``.json``: a list, one object per line. Ends in ``.jsonl``: the objects alone, one
        per line. Without suffix: a folder with one ``.json`` per image.

    Raises
    ------
    ManifestError
        If two images have the same file name (for a folder: apart from the suffix), or the suffix
        of `path` is another.
    """
    objects = _objects_of(manifest)
    if not path.suffix:
        _check_unique_stems(objects, manifest)
    lines = {name: json.dumps(one, ensure_ascii=False) for name, one in objects.items()}
    if path.suffix == ".json":
        _write_text("[" + ",\n".join(lines.values()) + "]\n", path)
    elif path.suffix == ".jsonl":
        _write_text("".join(f"{line}\n" for line in lines.values()), path)
    elif not path.suffix:
        make_folder(path)
        for name, line in lines.items():
            _write_text(f"{line}\n", path / f"{PurePosixPath(name).stem}.json")
    else:
        raise ManifestError("labels go to a .json or .jsonl file, or to a folder", where=str(path))


def _objects(file: Path) -> list[dict[str, object]]:
    """Decode every object of a file, with any separators between them."""
    text = read_utf8(file, "label file", error=ManifestError)
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicate_keys)
    objects: list[dict[str, object]] = []
    position = _next_object(text, 0)
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"the label file is not JSON: line {error.lineno}, column {error.colno}: "
                f"{error.msg}",
                where=str(file),
            ) from error
        except (ValueError, RecursionError) as error:  # duplicate key, number of 5000 digits
            raise ManifestError(
                f"the label file is not valid JSON: {error}", where=str(file)
            ) from error
        if not isinstance(value, dict):
            raise ManifestError(f"{value!r} is not an object of one image", where=str(file))
        objects.append(value)
        position = _next_object(text, position)
    return objects


def _without_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object, refusing duplicate keys."""
    one = dict(pairs)
    if len(one) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {twice!r} is given twice")
    return one


def _next_object(text: str, position: int) -> int:
    while position < len(text) and text[position] in SEPARATORS:
        position += 1
    return position


def _row(one: dict[str, object], taxonomy: Taxonomy, where: str) -> dict[str, Cell]:
    name = one.get(IMAGE_KEY)
    if not isinstance(name, str) or not PurePosixPath(name.strip()).name:
        raise ManifestError(f"the object has no {IMAGE_KEY!r}", where=where)
    where = f"{where}, image {name!r}"
    row: dict[str, Cell] = {
        "image_id": PurePosixPath(name).with_suffix("").as_posix(),
        "image_path": name,
    }
    for key, value in one.items():
        if key == IMAGE_KEY:
            continue
        try:
            label_id = taxonomy.find(key).id
        except TaxonomyError as error:
            raise TaxonomyError(error.message, where=where) from error
        if label_id in row:
            raise ManifestError(f"{key} is a second key of label {label_id!r}", where=where)
        if value is not None and (isinstance(value, bool) or value not in (0, 1)):
            raise ManifestError(f"{key} must be 1, 0 or null, got {value!r}", where=where)
        row[label_id] = None if value is None else int(value == 1)
    return row


def _objects_of(manifest: Manifest) -> dict[str, dict[str, Cell]]:
    """Return the label object of each image by its file name."""
    table = manifest.table
    names = [PurePosixPath(path).name for path in table["image_path"]]
    name, number = Counter(names).most_common(1)[0] if names else ("", 0)
    if number > 1:
        raise ManifestError(
            f"{number} images are named {name!r}, and the paper's files identify images by name "
            "alone; rename them",
            where=manifest.location,
        )
    keys = {label.name_zh or label.name: label.id for label in manifest.taxonomy.labels}
    paper = load_taxonomy("paper")
    figure_keys = tuple(paper.find(label_id).name_zh or "" for label_id in FIGURE_ORDER)
    order = figure_keys if set(keys) == set(figure_keys) else tuple(keys)
    objects = {}
    for row, image in enumerate(names):
        one: dict[str, Cell] = {IMAGE_KEY: image}
        for key in order:
            cell = table[keys[key]].iloc[row]
            one[key] = None if pd.isna(cell) else int(cell)
        objects[image] = one
    return objects


def _check_unique_stems(names: Iterable[str], manifest: Manifest) -> None:
    """Refuse ``1.png`` and ``1.jpg``, whose labels would both go to ``1.json``."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(PurePosixPath(name).stem, name)
        if other != name:
            raise ManifestError(
                f"{other!r} and {name!r} would be the same label file; write a .json or .jsonl",
                where=manifest.location,
            )


def _write_text(text: str, path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
