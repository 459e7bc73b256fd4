"""Hashes that find changed files: seals of models, and bundles of tensors and facts.

A *seal* is ``seal.json`` in the folder of a run, an export or a cross-validation: the SHA-256 of
every file that a call or a score rests on. `SealedFolder` is the one place that checks it; every
loader opens its folder so, and parses the bytes that were checked. A seal finds mistakes, not
malice: who can change the files can write the seal again.

A *bundle* is a safetensors file named by its own hash, and a JSON file of facts that names it. The
JSON is replaced in one step, so that a killed process leaves the older pair in force.

Without torch, so that evaluation and reports can check a seal.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glomerulab.errors import CheckpointError, OutputError, RunError
from glomerulab.runtime.files import (
    atomic_write,
    make_folder,
    parse_json,
    read_content,
    read_json,
    remove_partial_files,
)

__all__ = [
    "CROSSVAL_FILE",
    "SEALED_FILES",
    "SEAL_FILE",
    "SealedFolder",
    "check_seal",
    "crossval_runs",
    "is_crossval",
    "open_model_folder",
    "read_bundle",
    "refuse_other_model",
    "write_bundle",
    "write_seal",
]

logger = logging.getLogger(__name__)

SEAL_FILE = "seal.json"
CROSSVAL_FILE = "crossval.json"
"""Settings of a cross-validation, in its folder."""
COMPLETE = 2
"""Format of a seal that lists every file; the first listed tables and the checkpoint's JSON."""
COPY_AGAIN = "copy the whole folder again"
MARK = "sealed"
"""Key in the JSON of a model that was sealed: without its seal it is not used."""

CARDS = ("checkpoint/checkpoint.json", "best/checkpoint.json", "last/checkpoint.json", "card.json")
SEALED_FILES = (
    "config.toml",
    "manifest.csv",
    "taxonomy.toml",
    "history.csv",
    "environment.json",
    "start.json",
    "distillation.json",
    "predictions.csv",
    "predictions-repeat-*.csv",
    "fields.csv",
    "field_scores.csv",
    "structure_scores.csv",
    CROSSVAL_FILE,
    *CARDS,
    "model.onnx",
    "gates/gates.json",
)
"""Names or patterns of files that some loader reads. One that is there and not in the seal was
added."""
SEALED_MEMBERS = ("runs/*/checkpoint/checkpoint.json",)
"""The models of a cross-validation, each with a seal of its own in its run folder."""
SEALED_TENSORS = tuple(f"{one}/*.safetensors" for one in ("checkpoint", "best", "last", "gates"))
"""Read only if a sealed JSON names them."""
LARGE = {".safetensors", ".onnx"}
"""Suffixes of files that are checked when they are read, so that tables open without weights."""
MODEL_FILES = ("checkpoint/checkpoint.json", "checkpoint.json", "model.onnx", CROSSVAL_FILE)


class SealedFolder:
    """The folder of a model, whose files are checked against its seal.

    Opening it checks that all sealed files are there and unchanged, weights excepted, and that no
    other file was added that would be read. `read` checks the bytes that it returns, weights too.

    Parameters
    ----------
    folder : Path
        Of a run, an export or a cross-validation, or the ``checkpoint`` folder of a run, which the
        seal of the run covers. A folder without a seal opens too.
    rewriting : str, optional
        Start of the names that the caller is about to write anew, such as ``gates/``, or "" for
        all: they are not checked. `reseal` seals what was written.

    Raises
    ------
    RunError
        If a file is missing, changed or added, or the seal cannot be read; it names the file. If
        the folder is that of a cross-validation that was interrupted.
    """

    def __init__(self, folder: Path, *, rewriting: str | None = None) -> None:
        self.folder = folder
        self._rewriting = rewriting
        self._root, self._prefix = _sealed_root(folder)
        path = self._root / SEAL_FILE
        self._hashes: dict[str, str] = {}
        self._format = 0
        if path.is_file():
            self._format, self._hashes = _read_seal(path)
        elif is_crossval(folder) and not (folder / "config.toml").is_file():
            raise RunError(
                "the cross-validation in this folder is not complete; run `glomerulab crossval` "
                "again to continue it",
                where=str(folder),
            )
        self.check()

    @staticmethod
    def of(folder: "Path | SealedFolder") -> "SealedFolder":
        """Open a folder, unless it is open already."""
        return folder if isinstance(folder, SealedFolder) else SealedFolder(folder)

    @property
    def is_sealed(self) -> bool:
        """Whether there is a seal."""
        return self._format > 0

    @property
    def is_complete(self) -> bool:
        """Whether the seal covers every file; that of an earlier version does not."""
        return self._format >= COMPLETE

    def check(self) -> None:
        """Check all files but the weights, as opening does."""
        for name, expected in self._hashes.items():
            path = self._root / name
            if self._is_rewritten(name):
                continue
            if not path.is_file():
                raise RunError(
                    f"{name} is missing, though the folder had it when it was sealed; "
                    f"{_way_out(name)}",
                    where=str(path),
                )
            if path.suffix not in LARGE and _sha256(path) != expected:
                raise _changed(name, path)
        if not self.is_complete:
            return
        for name in _names(self._root, SEALED_FILES):
            if name not in self._hashes and not self._is_rewritten(name):
                raise _added(name, self._root / name)

    def has(self, name: str) -> bool:
        """Return whether the folder holds a file."""
        return (self.folder / name).is_file()

    def read(self, name: str, *, way_out: str = COPY_AGAIN) -> tuple[bytes, str]:
        """Return the bytes of a file, which are those that were sealed, and their SHA-256.

        Raises
        ------
        RunError
            If they are not those that were sealed.
        CheckpointError
            If the file cannot be read.
        """
        path, sealed_name = self.folder / name, self._prefix + name
        content = read_content(path, path.name, error=CheckpointError, way_out=way_out)
        found = hashlib.sha256(content).hexdigest()
        expected = self._hashes.get(sealed_name)
        if self._is_rewritten(sealed_name) or (expected is None and not self.is_complete):
            return content, found
        if expected is None:
            raise _added(sealed_name, path)
        if expected != found:
            raise _changed(sealed_name, path)
        return content, found

    def read_facts(self, name: str, *, way_out: str = COPY_AGAIN) -> dict[str, Any]:
        """Return the object in a JSON file, as `read`."""
        path, (content, _) = self.folder / name, self.read(name, way_out=way_out)
        facts = parse_json(content, path.name, error=CheckpointError, where=str(path))
        if not isinstance(facts, dict):
            raise CheckpointError(f"{path.name} must hold one JSON object", where=str(path))
        return facts

    def read_card(self, name: str) -> dict[str, Any]:
        """Return the facts of a model; refuse a model that lost its seal, warn of one without."""
        return self.checked_card(self.read_facts(name))

    def checked_card(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return facts as `read_card`."""
        was_sealed = bool(facts.pop(MARK, False))
        if self.is_complete or self._rewriting == "":
            return facts
        if was_sealed:
            raise RunError(
                "seal.json is missing or incomplete, though the model was sealed, so changes of "
                "its files would not be noticed; copy the whole folder again, or if its training "
                "was interrupted, resume it",
                where=str(self._root / SEAL_FILE),
            )
        logger.warning("%s: %s", self.folder, self.warning)
        return facts

    @property
    def warning(self) -> str | None:
        """What a user must know of a model whose seal does not cover everything."""
        if self.is_complete:
            return None
        if self.is_sealed:
            return (
                "The seal of the model is of an earlier version, which did not cover its "
                "calibration; `glomerulab gates RUN` seals all of it."
            )
        return (
            "The model has no seal, since its training is not complete or an earlier version wrote "
            "it, so changes of its files are not noticed; train or export it again to seal it."
        )

    def reseal(self) -> None:
        """Seal the files that the folder was opened to rewrite; the other hashes stay as they are.

        A seal of an earlier version becomes a complete one. A folder without a seal gets none,
        since a seal marks a run as complete.
        """
        if not self.is_sealed:
            return
        if not self.is_complete:
            self.check()
            write_seal(self._root)
            return
        kept = {name: one for name, one in self._hashes.items() if not self._is_rewritten(name)}
        written = [name for name in _all_names(self._root) if self._is_rewritten(name)]
        _write_seal(self._root, kept | {name: _sha256(self._root / name) for name in written})

    def _is_rewritten(self, name: str) -> bool:
        return self._rewriting is not None and name.startswith(self._rewriting)


def is_crossval(folder: Path) -> bool:
    """Return whether a folder is that of a cross-validation."""
    return (folder / CROSSVAL_FILE).is_file()


def crossval_runs(folder: Path) -> list[Path]:
    """Return the run folders of a complete cross-validation, in order.

    Raises
    ------
    RunError
        If one is missing or not complete.
    """
    settings = read_json(folder / CROSSVAL_FILE, "record of the cross-validation", error=RunError)
    found = sorted(path.parent for path in (folder / "runs").glob(f"*/{SEAL_FILE}"))
    try:
        n_runs = int(settings["folds"]) * int(settings["repeats"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            "the record of the cross-validation does not give folds and repeats; copy the whole "
            "folder again",
            where=str(folder / CROSSVAL_FILE),
        ) from error
    if len(found) != n_runs:
        raise RunError(
            f"the cross-validation has {n_runs} runs, and {len(found)} of them are complete here; "
            "copy the whole folder again, or run `glomerulab crossval` again to continue it",
            where=str(folder / "runs"),
        )
    return found


def open_model_folder(folder: Path | SealedFolder) -> SealedFolder:
    """Open a folder that holds a trained model.

    Parameters
    ----------
    folder : Path
        A run folder, its ``checkpoint`` folder, or an exported model.

    Raises
    ------
    CheckpointError
        If there is no such folder, or no model in it.
    RunError
        As for `SealedFolder`.
    """
    if isinstance(folder, SealedFolder):
        return folder
    if not folder.is_dir():
        raise CheckpointError(
            "there is no such run folder; give the folder that `glomerulab train` or `glomerulab "
            "export` wrote",
            where=str(folder),
        )
    files = SealedFolder(folder)
    if not any((folder / name).is_file() for name in MODEL_FILES):
        raise CheckpointError(
            "the folder holds no trained model; give the folder that `glomerulab train` or "
            "`glomerulab export` wrote",
            where=str(folder),
        )
    return files


def check_seal(folder: Path) -> bool:
    """Check a folder as `SealedFolder` does; return whether it has a seal."""
    return SealedFolder(folder).is_sealed


def write_seal(folder: Path) -> None:
    """Write the hashes of a complete model's files to ``seal.json``, and mark it as sealed."""
    names = _all_names(folder)
    for name in CARDS:
        if name in names:
            _mark(folder / name)
    _write_seal(folder, {name: _sha256(folder / name) for name in names})


def refuse_other_model(folder: Path, *, own: str) -> None:
    """Refuse to write a model into a folder that holds one of another kind.

    Parameters
    ----------
    own : str
        File that marks the kind to be written.

    Raises
    ------
    OutputError
        If there is a seal, or a configuration, and not `own`.
    """
    names = (SEAL_FILE, "config.toml", CROSSVAL_FILE)
    if any((folder / name).is_file() for name in names) and not (folder / own).is_file():
        raise OutputError("this folder holds another model; give another --out", where=str(folder))


def _write_seal(folder: Path, hashes: Mapping[str, str]) -> None:
    seal = {"format": COMPLETE, "sha256": dict(sorted(hashes.items()))}
    with atomic_write(folder / SEAL_FILE) as temporary:
        temporary.write_text(json.dumps(seal, indent=2) + "\n", encoding="utf-8")


def _mark(path: Path) -> None:
    facts = read_json(path, path.name, error=CheckpointError)
    if not facts.get(MARK):
        _write_json(path, {**facts, MARK: True})


def _write_json(path: Path, facts: Mapping[str, object]) -> None:
    with atomic_write(path) as temporary:
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _sealed_root(folder: Path) -> tuple[Path, str]:
    """Return the folder of the seal, and what its names have before the names in `folder`."""
    seal = folder / SEAL_FILE
    if seal.is_file() or not (folder / "checkpoint.json").is_file():
        return folder, ""
    place = folder.absolute()  # also of "."
    above = place.parent / SEAL_FILE
    if above.is_file() and f"{place.name}/checkpoint.json" in _read_seal(above)[1]:
        return place.parent, f"{place.name}/"
    return folder, ""


def _all_names(folder: Path) -> list[str]:
    return _names(folder, (*SEALED_FILES, *SEALED_TENSORS))


def _names(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Return the files of a folder that a seal covers, by relative name."""
    if is_crossval(folder):
        patterns += SEALED_MEMBERS
    found = [path for one in patterns for path in folder.glob(one) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found]


def _read_seal(path: Path) -> tuple[int, dict[str, str]]:
    try:
        seal = read_json(path, "seal of the run", error=RunError)
        hashes = {str(name): str(one) for name, one in seal["sha256"].items()}
        return int(seal.get("format", 1)), hashes
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            "the seal of the run lists no SHA-256; copy the whole folder again", where=str(path)
        ) from error


def _changed(name: str, path: Path) -> RunError:
    return RunError(
        f"{name} changed since the folder was sealed (its SHA-256 differs from seal.json); "
        f"{_way_out(name)}",
        where=str(path),
    )


def _added(name: str, path: Path) -> RunError:
    return RunError(
        f"{name} is not in seal.json, so it was added after the folder was sealed; remove it, or "
        f"{_way_out(name)}",
        where=str(path),
    )


def _way_out(name: str) -> str:
    """Return what restores a file that is not the one that was sealed."""
    if name.startswith("gates/"):
        return (
            f"{COPY_AGAIN}, or run `glomerulab gates RUN` again (for an export, `glomerulab "
            "export`)"
        )
    if name in {"card.json", "model.onnx"}:
        return f"{COPY_AGAIN}, or run `glomerulab export` again"
    if name.endswith(".csv"):
        return (
            f"{COPY_AGAIN} or train again. To evaluate tables of your own, put them "
            "in a folder without seal.json; the report then states that they are not sealed"
        )
    return f"{COPY_AGAIN} or train again"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_bundle(folder: Path, name: str, content: bytes, facts: Mapping[str, object]) -> None:
    """Write bytes and facts as one bundle, in place of an older one of that name.

    Parameters
    ----------
    folder : Path
        Made if needed.
    name : str
        Gives ``<name>.json`` and ``<name>-<hash>.safetensors``.
    content : bytes
        Of a safetensors file.
    facts : mapping of str to object
        JSON values; the keys ``tensors_file`` and ``tensors_sha256`` are added.
    """
    make_folder(folder)
    digest = hashlib.sha256(content).hexdigest()
    file_name = f"{name}-{digest[:16]}.safetensors"
    with atomic_write(folder / file_name) as temporary:
        temporary.write_bytes(content)
    written = {**facts, "tensors_file": file_name, "tensors_sha256": digest}
    _write_json(folder / f"{name}.json", written)
    for path in folder.glob(f"{name}-*.safetensors"):
        if path.name != file_name:
            path.unlink()
    remove_partial_files(folder)


def read_bundle(folder: Path | SealedFolder, name: str) -> tuple[bytes, dict[str, Any]]:
    """Read the bytes and the facts of a bundle.

    Parameters
    ----------
    folder : Path
    name : str
        Relative to it, such as ``gates/gates``.

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the bytes are not those the facts were written for.
    RunError
        If a file is not the one that was sealed.
    """
    files = SealedFolder.of(folder)
    facts = files.read_facts(f"{name}.json")
    file_name = facts.get("tensors_file")
    if not isinstance(file_name, str) or Path(file_name).name != file_name:
        raise CheckpointError(
            f"{name}.json names no tensors_file of its folder",
            where=str(files.folder / f"{name}.json"),
        )
    tensors = (Path(name).parent / file_name).as_posix()
    content, found = files.read(tensors)
    if found != facts.get("tensors_sha256"):
        raise CheckpointError(
            f"the tensors of {name} are not those that were written (SHA-256 differs); "
            "copy the whole folder again or train again",
            where=str(files.folder / tensors),
        )
    return content, facts
