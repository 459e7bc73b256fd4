"""Options that several commands share, and their parsing."""

from enum import StrEnum
from typing import Literal

__all__ = ["LanguageOption", "StainOption", "given_options", "parse_pairs", "parse_settings"]


class LanguageOption(StrEnum):
    """Language of a page, a figure or a report."""

    EN = "en"
    ZH = "zh"

    @property
    def language(self) -> Literal["en", "zh"]:
        """The language as the package names it."""
        return "zh" if self is LanguageOption.ZH else "en"


class StainOption(StrEnum):
    """Stains that manifests know, `glomerulab.cohort.schema.STAINS`."""

    HE = "HE"
    PAS = "PAS"
    PASM = "PASM"
    TRI = "TRI"
    H_DAB = "H-DAB"
    OTHER = "other"


def given_options(**options: object) -> dict[str, object]:
    """Return the options that the user gave, which override the values of a file."""
    return {key: value for key, value in options.items() if value is not None}


def parse_settings(settings: list[str] | None) -> dict[str, object]:
    """Parse the values of ``--set`` into overrides of a configuration."""
    return dict(_parsed(setting) for setting in settings or [])


def _parsed(setting: str) -> tuple[str, object]:
    """Parse KEY=VALUE; a value that is not TOML is a string, so that names need no quotes."""
    import tomllib

    from glomerulab.errors import ConfigError

    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set needs KEY=VALUE, got {setting!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def parse_pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """Parse NAME=VALUE options."""
    from glomerulab.errors import ConfigError

    pairs: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"a value of {option} must be NAME=VALUE, got {text!r}", where=option)
        if name in pairs:
            raise ConfigError(f"{name!r} is given twice", where=option)
        pairs[name] = value
    return pairs
