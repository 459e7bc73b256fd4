"""The label files of the paper (Fig. 5b): one JSON object per image, with Chinese keys.

``{"image_name": "0496052bb_1.png", "正常肾小球": 1, ...}`` is read as one object, as a list, as
one object per line (with or without the figure's brackets), or as a folder of such files.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.taxonomy import Taxonomy

__all__ = ["import_paper_labels", "write_paper_labels"]

IMAGE_KEY = "image_name"

FIGURE_ORDER = ("正常肾小球", "节段性硬化", "系膜细胞增生", "新月体形成")
"""Keys in the order of the figure, which is not that of the paper's tables."""

BETWEEN_OBJECTS = " \t\r\n,[]"

Cell = str | int | None


def import_paper_labels(
    path: Path, taxonomy: Taxonomy, *, image_root: Path | None = None
) -> Manifest:
    """Make a manifest of the paper's label JSON.

    Parameters
    ----------
    path : Path
        A file, or a folder whose ``.json`` files are read in the order of their names. UTF-8.
    taxonomy : Taxonomy
        Its Chinese names (or English names, or ids) are the keys.
    image_root : Path, optional
        What the image names start from; by default the folder of the file, or `path` itself if it
        is a folder.

    Returns
    -------
    Manifest
        In the order of the objects. `image_id` is the name without suffix. A label that is null
        or not mentioned is unknown; patients are not known.

    Raises
    ------
    ManifestError
        If a file is not JSON, an object has no image name or a value other than 1, 0 and null;
        the message names the file and the object.
    TaxonomyError
        If a key is no label.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ManifestError("holds no .json file", where=str(path))
    rows = [
        _row(one, taxonomy, f"{file}: object {number}")
        for file in files
        for number, one in enumerate(_objects(file), start=1)
    ]
    if not rows:
        raise ManifestError("holds no object of an image", where=str(path))
    folder = image_root if image_root is not None else path if path.is_dir() else path.parent
    frame = pd.DataFrame(rows, columns=["image_id", "image_path", *taxonomy.label_ids])
    try:
        return manifest_from_rows(frame, folder=folder, taxonomy=taxonomy)
    except ManifestError as error:
        raise ManifestError(error.message, where=str(path)) from error


def write_paper_labels(manifest: Manifest, path: Path) -> None:
    """Write labels as the paper's JSON; reading it and writing again gives the same bytes.

    Parameters
    ----------
    manifest : Manifest
        Of each image its file name and labels are written, an unknown label as null.
    path : Path
        Ends in ``.json``: a list, one object per line. Ends in ``.jsonl``: the objects alone, one
        per line. Without suffix: a folder with one ``.json`` per image.

    Raises
    ------
    ManifestError
        If two images have one file name (for a folder: but for its suffix), or the suffix of
        `path` is another.
    """
    objects = _objects_of(manifest)
    if not path.suffix:
        _refuse_one_file_for_two(objects, manifest)
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
        raise ManifestError("must end in .json or .jsonl, or be a folder", where=str(path))


def _objects(file: Path) -> list[dict[str, object]]:
    """Decode every object of a file, whatever stands between them."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise ManifestError("is not UTF-8 text; save it as UTF-8", where=str(file)) from error
    decoder = json.JSONDecoder(object_pairs_hook=_each_key_once)
    objects: list[dict[str, object]] = []
    place = _next_object(text, 0)
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"not JSON in line {error.lineno}, column {error.colno}: {error.msg}",
                where=str(file),
            ) from error
        except (ValueError, RecursionError) as error:  # a key twice, a number of 5000 digits
            raise ManifestError(f"not valid JSON: {error}", where=str(file)) from error
        if not isinstance(value, dict):
            raise ManifestError(f"{value!r} is not an object of one image", where=str(file))
        objects.append(value)
        place = _next_object(text, place)
    return objects


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object whose keys are all there."""
    one = dict(pairs)
    if len(one) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {twice!r} is given twice")
    return one


def _next_object(text: str, place: int) -> int:
    while place < len(text) and text[place] in BETWEEN_OBJECTS:
        place += 1
    return place


def _row(one: dict[str, object], taxonomy: Taxonomy, where: str) -> dict[str, Cell]:
    name = one.get(IMAGE_KEY)
    if not isinstance(name, str) or not PurePosixPath(name.strip()).name:
        raise ManifestError(f"has no {IMAGE_KEY!r}", where=where)
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
    """Return the object of each image by its file name."""
    table = manifest.table
    names = [PurePosixPath(path).name for path in table["image_path"]]
    name, number = Counter(names).most_common(1)[0] if names else ("", 0)
    if number > 1:
        raise ManifestError(
            f"{number} images are called {name!r}; the paper's files tell images by name alone",
            where=manifest.location,
        )
    keys = {label.name_zh or label.name: label.id for label in manifest.taxonomy.labels}
    order = FIGURE_ORDER if set(keys) == set(FIGURE_ORDER) else tuple(keys)
    objects = {}
    for row, image in enumerate(names):
        one: dict[str, Cell] = {IMAGE_KEY: image}
        for key in order:
            cell = table[keys[key]].iloc[row]
            one[key] = None if pd.isna(cell) else int(cell)
        objects[image] = one
    return objects


def _refuse_one_file_for_two(names: Iterable[str], manifest: Manifest) -> None:
    """Refuse ``1.png`` and ``1.jpg``, whose labels would both be ``1.json``."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(PurePosixPath(name).stem, name)
        if other != name:
            raise ManifestError(
                f"{other!r} and {name!r} would be one file of labels; write a .json or .jsonl",
                where=manifest.location,
            )


def _write_text(text: str, path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
