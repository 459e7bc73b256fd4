"""Options that several commands share, and their parsing."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from glomerulab.evaluation.figures.style import FigureFiles
    from glomerulab.slides.regions.features import RegionOptions

__all__ = [
    "AcceptEditsOption",
    "ClassOption",
    "ClusterOption",
    "Dpi",
    "DrawnMppOption",
    "FigureFormats",
    "IgnoreBoundsOption",
    "LanguageOption",
    "PartOption",
    "ReferencesOption",
    "SchedulerOption",
    "SkipClassOption",
    "StainOption",
    "StructuresOption",
    "SurroundingsOption",
    "WidthMm",
    "figure_files",
    "given_options",
    "parse_pairs",
    "parse_settings",
    "region_options",
]

ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME[=LABEL]",
        help="Take only regions of this class, under LABEL if given; repeatable.",
    ),
]
SkipClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-class", metavar="NAME", help="Leave out regions of this class; repeatable."
    ),
]
StructuresOption = Annotated[
    Path | None,
    typer.Option(
        "--structures",
        help="Folder that `glomerulab segment` wrote: areas, T, ci and ct as well.",
    ),
]
ReferencesOption = Annotated[
    Path | None,
    typer.Option(
        "--references",
        help="Folder with a picture of each label, LABEL.png or .jpg, shown with its definition.",
    ),
]
SurroundingsOption = Annotated[
    Path | None,
    typer.Option(
        "--slides",
        exists=True,
        help="Slides (file, folder or table): show neighbours on the slide itself, not on its map.",
    ),
]
AcceptEditsOption = Annotated[
    bool,
    typer.Option(
        "--accept-edits",
        help="Take predictions that were changed since they were made; every report states it.",
    ),
]
IgnoreBoundsOption = Annotated[
    bool,
    typer.Option(
        "--ignore-bounds",
        help="GeoJSON counts from the slide's corner, not from openslide.bounds as QuPath's.",
    ),
]
DrawnMppOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=1000,
        help="Micrometres per pixel of the image that the regions were drawn on, if not level 0.",
    ),
]
FigureFormats = Annotated[
    str | None,
    typer.Option(
        "--figures",
        help="Formats of the figures, such as svg,pdf; also png and tiff. Text in SVG "
        "and PDF can be edited.",
    ),
]
Dpi = Annotated[
    int | None, typer.Option(min=72, max=1200, help="Of PNG and TIFF; 300 for a paper.")
]
WidthMm = Annotated[
    float | None,
    typer.Option(min=40, max=400, help="Width of every figure, such as 85 for one column."),
]


SchedulerOption = Annotated[
    str | None,
    typer.Option(help="Dask scheduler whose workers do it, such as tcp://host:8786."),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(help="Cluster file (TOML) of a queue, whose jobs are started and ended."),
]


PartOption = Annotated[
    str | None,
    typer.Option(
        help="7/100: do the seventh of 100 parts; when all are done, run without it.",
    ),
]


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


def region_options(
    classes: list[str] | None,
    skip_classes: list[str] | None,
    *,
    ignore_bounds: bool,
    drawn_mpp: float | None,
) -> "RegionOptions":
    """Return how a command reads region files."""
    from glomerulab.slides.regions.features import RegionOptions

    return RegionOptions(tuple(classes or ()), tuple(skip_classes or ()), ignore_bounds, drawn_mpp)


def figure_files(
    formats: str | None, dpi: int | None, width_mm: float | None
) -> "FigureFiles | None":
    """Return the files of figures that the options ask for; None without any."""
    if formats is None and dpi is None and width_mm is None:
        return None
    from glomerulab.errors import ConfigError
    from glomerulab.evaluation.figures.style import FIGURE_FORMATS, FigureFiles

    given = FigureFiles()
    names = given.formats
    if formats is not None:
        names = tuple(dict.fromkeys(one.strip(" .").lower() for one in formats.split(",")))
    unknown = [name for name in names if name not in FIGURE_FORMATS]
    if unknown:
        raise ConfigError(
            f"--figures has the format {unknown[0]!r}; known are {', '.join(FIGURE_FORMATS)}"
        )
    return FigureFiles(names, given.dpi if dpi is None else dpi, width_mm)


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
    except (ValueError, RecursionError):  # not TOML, or a number of too many digits
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
