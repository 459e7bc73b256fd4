"""Where a run was made: versions, machine, commit and seed, for whoever wants to repeat it."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from glomerulab.errors import RunError
from glomerulab.runtime.files import atomic_write

__all__ = [
    "add_warning",
    "cpu_flags",
    "hash_of",
    "kept_manifest_hash",
    "processor",
    "write_environment",
]

PACKAGES = ("glomerulab", "torch", "torchvision", "timm", "accelerate", "numpy", "pandas", "pillow")


def write_environment(
    path: Path, *, seed: int, manifest_path: Path, device: str, warnings: Sequence[str] = ()
) -> None:
    """Write versions, machine, commit, seed, the manifest's hash and warnings as JSON.

    Parameters
    ----------
    path : Path
    seed : int
    manifest_path : Path
        Hashed.
    device : str
    warnings : sequence of str, default ()
        What a reader of the run's scores has to know.
    """
    facts = {
        "research_use_only": True,
        "seed": seed,
        "manifest_sha256": hash_of(manifest_path),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES if _is_installed(name)},
        "platform": platform.platform(),
        "processor": processor(),
        "device": device,
        "n_threads": torch.get_num_threads(),
        "warnings": list(warnings),
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept_manifest_hash(path: Path) -> str:
    """Return the hash of the manifest that a run was begun with.

    Parameters
    ----------
    path : Path
        As `write_environment` wrote it.

    Returns
    -------
    str

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["manifest_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"is damaged or missing: {error}; train again", where=str(path)) from error


def add_warning(path: Path, warning: str) -> None:
    """Add to what a reader of the run's scores has to know; once, however often it is said.

    Parameters
    ----------
    path : Path
        As `write_environment` wrote it.
    warning : str
    """
    facts = json.loads(path.read_text(encoding="utf-8"))
    if warning in facts["warnings"]:
        return
    facts["warnings"].append(warning)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def cpu_flags() -> str:
    """Return what Linux says of the processor; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def processor() -> str:
    """Return the name of the GPU, or else of the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str | None:
    """Return the commit of the source, where it runs from a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None
