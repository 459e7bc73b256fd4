"""The example configurations that the package brings."""

from pathlib import Path

from glomerulab.errors import ConfigError
from glomerulab.runtime.messages import did_you_mean

__all__ = ["read_shipped_config", "shipped_configs"]

PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> dict[str, Path]:
    """Return the files by name, such as ``default`` or ``taxonomies/glas``."""
    installed = PACKAGE / "configs"
    folder = installed if installed.is_dir() else PACKAGE.parents[1] / "configs"  # a checkout
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.toml"))
    }


def read_shipped_config(name: str) -> str:
    """Return the text of a configuration.

    Raises
    ------
    ConfigError
        If there is none of this name; the message lists the known ones.
    """
    known = shipped_configs()
    path = known.get(name.removesuffix(".toml"))
    if path is None:
        raise ConfigError(
            f"there is no configuration {name!r}; known are {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )
    return path.read_text(encoding="utf-8")
