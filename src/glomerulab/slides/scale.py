"""The scale of a slide: what its metadata state, what can be true, and what contradicts it.

OpenSlide reads the resolution tags of a TIFF, but neither the OME-XML nor ImageJ's text in its
description; plain images are not OpenSlide's at all. A scale that no light microscope has is
refused by `glomerulab.slides.slide`; one that contradicts the objective, the user's table or the
size of a glomerulus is a warning.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from glomerulab.geometry import Region
from glomerulab.i18n.catalogue import translate
from glomerulab.images import tiff_tags

__all__ = [
    "MAX_MPP",
    "MIN_MPP",
    "SAME_MPP",
    "ScaleWarning",
    "image_file_scale",
    "image_scale_warning",
    "region_size_warning",
    "scale_warnings",
    "with_described_scale",
]

MIN_MPP = 0.05
"""A 100x objective with the finest camera samples at about 0.05; light resolves 0.2 micrometres."""

MAX_MPP = 10.0
"""A glomerulus has 10 to 20 pixels at this scale; print resolutions up to 2400 dpi lie above it."""

GLOMERULUS_UM = (50.0, 400.0)
"""Smallest and largest plausible diameter of a glomerulus: 100 to 300, with room for partial and
enlarged ones."""

MPP_TIMES_OBJECTIVE = 10.0
"""Micrometres per pixel times power: 20x has about 0.5, 40x about 0.25."""

MAX_CONTRADICTION = 1.5
"""Factor between objective and mpp from which they contradict each other."""

SAME_MPP = 0.02
"""Relative difference of two statements of the same scale that is rounding."""

MICROMETRES = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "thou": 25.4,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Length of the units of OME-XML and ImageJ."""

RESOLUTION_UNITS = {2: MICROMETRES["in"], 3: MICROMETRES["cm"]}
"""Of the TIFF tag ResolutionUnit; 1 is no unit."""

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 270, 282, 283, 296


@dataclass(frozen=True)
class ScaleWarning:
    """A doubt about the scale of a slide, which does not stop a run."""

    text: str
    """English template; the catalogue has its translation."""
    values: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the English sentence."""
        return translate(self.text, "en", **self.values)


def scale_warnings(
    slide_id: str,
    stated: tuple[float, float] | None,
    used: tuple[float, float],
    *,
    objective: float | None,
    vendor: str | None,
) -> list[ScaleWarning]:
    """Compare the statements about one slide.

    Parameters
    ----------
    stated : tuple of float or None
        Micrometres per level-0 pixel along x and y, as the file states them.
    used : tuple of float
        The same as they are used: the stated ones, or those of a table or an option.
    objective : float or None
        Power of the objective.
    vendor : str or None
        OpenSlide's name of the format.

    Returns
    -------
    list of ScaleWarning
    """
    found = []
    pairs = zip(stated or used, used, strict=True)
    if any(abs(there / here - 1) > SAME_MPP for there, here in pairs):
        warning = ScaleWarning(
            "Slide {slide} states {stated} µm per pixel, but {used} was given and is used; correct "
            "the table or the option if the slide is right.",
            {"slide": slide_id, "stated": _pair(stated), "used": _pair(used)},
        )
        found.append(warning)
    # 3DHISTECH's scanners (mirax) magnify once more behind the objective.
    if objective and vendor != "mirax":
        factor = sum(used) / 2 * objective / MPP_TIMES_OBJECTIVE
        if not 1 / MAX_CONTRADICTION <= factor <= MAX_CONTRADICTION:
            values = {
                "slide": slide_id,
                "objective": f"{objective:g}",
                "expected": f"{MPP_TIMES_OBJECTIVE / objective:.2g}",
                "used": _pair(used),
            }
            warning = ScaleWarning(
                "Slide {slide} states a {objective}x objective, which has about {expected} µm per "
                "pixel, but its scale is {used}; check it on a structure of known size.",
                values,
            )
            found.append(warning)
    return found


def region_size_warning(
    slide_id: str, regions: Sequence[Region], mpp_xy: tuple[float, float]
) -> ScaleWarning | None:
    """Return a warning that counts the regions too small or too large for a glomerulus.

    Parameters
    ----------
    regions : sequence of Region
        Of one slide, in level-0 pixels.
    mpp_xy : tuple of float
        Micrometres per level-0 pixel along x and y.

    Returns
    -------
    ScaleWarning or None
        Names the scale as the likely cause where most regions are of such a size.
    """
    across, down = mpp_xy
    boxes = [region.box() for region in regions]
    sizes = [max(box.width * across, box.height * down) for box in boxes]
    smallest, largest = GLOMERULUS_UM
    outside = [size for size in sizes if not smallest <= size <= largest]
    if not outside:
        return None
    values = {
        "slide": slide_id,
        "n_outside": len(outside),
        "n": len(sizes),
        "low": f"{smallest:g}",
        "high": f"{largest:g}",
        "sizes": "–".join(dict.fromkeys(f"{f(outside):.3g}" for f in (min, max))),
        "mpp": _pair(mpp_xy),
    }
    if smallest <= median(sizes) <= largest:
        return ScaleWarning(
            "{n_outside} of {n} regions on slide {slide} measure {sizes} µm, where a "
            "glomerulus measures {low} to {high}; look at them.",
            values,
        )
    return ScaleWarning(
        "{n_outside} of {n} regions on slide {slide} measure {sizes} µm, where a "
        "glomerulus measures {low} to {high}: the slide's scale of {mpp} µm per pixel is probably "
        "wrong (give --mpp-override, or mpp in the slides table), or the regions were drawn at "
        "another scale (give --drawn-mpp).",
        values,
    )


def with_described_scale(properties: Mapping[str, str], description: str) -> dict[str, str]:
    """Return a slide's properties with the scale and objective that a TIFF's description states.

    Parameters
    ----------
    properties : mapping
        Under OpenSlide's names.
    description : str
        The tag ImageDescription: OME-XML, ImageJ's text, or anything else, which changes nothing.
    """
    found = dict(properties)
    if "<OME" in description or ":OME" in description:
        found |= _of_ome_xml(description)
    elif description.startswith("ImageJ="):
        found |= _of_imagej(description, properties)
    return found


def image_scale_warning(file: Path | io.BytesIO, used: float) -> ScaleWarning | None:
    """Return a warning if an image file states another plausible scale than the one given.

    Parameters
    ----------
    used : float
        Micrometres per pixel.
    """
    properties = image_file_scale(file)
    across, down = (_positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if across is None or down is None:
        return None
    if not all(MIN_MPP <= one <= MAX_MPP for one in (across, down)):
        return None  # a resolution of print
    if all(abs(one / used - 1) <= SAME_MPP for one in (across, down)):
        return None
    return ScaleWarning(
        "The image file states {stated} µm per pixel, but {used} was given and is used; correct "
        "it if the file is right.",
        {"stated": _pair((across, down)), "used": f"{used:g}"},
    )


def image_file_scale(path: Path | io.BytesIO) -> dict[str, str]:
    """Return the scale and objective that a plain TIFF states, under OpenSlide's names.

    Other image files state the resolution of print, not of a microscope: the result is empty.
    """
    tags = tiff_tags(path)
    found: dict[str, str] = {}
    unit = RESOLUTION_UNITS.get(int(tags.get(RESOLUTION_UNIT, 2)))
    for axis, name, tag in (("x", "X", X_RESOLUTION), ("y", "Y", Y_RESOLUTION)):
        per_unit = _positive(tags.get(tag))
        if per_unit is not None:
            found[f"tiff.{name}Resolution"] = f"{per_unit:g}"
            if unit is not None:
                found[f"openslide.mpp-{axis}"] = repr(unit / per_unit)
    return with_described_scale(found, str(tags.get(DESCRIPTION, "")))


def _of_ome_xml(text: str) -> dict[str, str]:
    """Return the scale of the first image of OME-XML, which is the first of the file."""
    try:
        root: Element = fromstring(text.strip("\0 \r\n").encode(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError):
        return {}
    found: dict[str, str] = {}
    pixels = _first(root, "Pixels")
    if pixels is not None:
        sizes = {
            f"openslide.mpp-{axis.lower()}": _micrometres(
                pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
            )
            for axis in "XY"
        }
        if None not in sizes.values():
            found |= {name: repr(size) for name, size in sizes.items()}
    objective = _first(root, "Objective")
    if objective is not None and _positive(objective.get("NominalMagnification")) is not None:
        found["openslide.objective-power"] = str(objective.get("NominalMagnification"))
    return found


def _of_imagej(text: str, properties: Mapping[str, str]) -> dict[str, str]:
    """Return the scale of ImageJ, which writes pixels per its own unit into the TIFF's tags."""
    lines = dict(line.partition("=")[::2] for line in text.splitlines())
    unit = re.sub(r"\\u00[bB]5", "µ", lines.get("unit", "").strip())
    found = {}
    for axis in "XY":
        per_unit = _positive(properties.get(f"tiff.{axis}Resolution"))
        size = None if per_unit is None else _micrometres(1 / per_unit, unit)
        if size is None:
            return {}
        found[f"openslide.mpp-{axis.lower()}"] = repr(size)
    return found


def _first(root: Element, name: str) -> Element | None:
    """Return the first element of a name in any namespace."""
    return next((one for one in root.iter() if str(one.tag).rpartition("}")[2] == name), None)


def _micrometres(size: object, unit: str) -> float | None:
    length = MICROMETRES.get(unit.strip() if unit.strip() == "m" else unit.strip().lower())
    value = _positive(size)
    return None if length is None or value is None else value * length


def _positive(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _pair(mpp_xy: tuple[float, float] | None) -> str:
    across, down = mpp_xy or (math.nan, math.nan)
    return f"{across:g}" if math.isclose(across, down, rel_tol=1e-3) else f"{across:g} x {down:g}"
