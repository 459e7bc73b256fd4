"""The structures that the package knows: names, colours, and which lies within which."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from glomerulab.errors import ConfigError
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.slides.regions.features import class_key

__all__ = [
    "KNOWN_STRUCTURES",
    "MAX_STRUCTURES",
    "Structure",
    "find_structure",
    "in_drawing_order",
    "own_structures",
    "structure",
]

MAX_STRUCTURES = 16
"""Of one model; a pixel's structures are the bits of a uint16."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Structure:
    """One kind of structure."""

    id: str
    name: str
    """English; Chinese by `name_in`."""
    colour: Colour
    """Of outlines and label images, RGB from 0 to 255."""
    kind: Literal["object", "area"]
    """Objects are counted one by one; an area has only a size."""
    within: str | None = None
    """The structure that holds it."""

    def name_in(self, language: Language) -> str:
        """Return the name in a language."""
        return translate(self.name, language)


KNOWN_STRUCTURES = (
    Structure("cortex", translate("Cortex", "en"), (250, 225, 160), "area"),
    Structure("medulla", translate("Medulla", "en"), (205, 190, 235), "area"),
    Structure("fibrosis", translate("Interstitial fibrosis", "en"), (120, 170, 220), "area"),
    Structure("tubule", translate("Tubule", "en"), (240, 160, 90), "object"),
    Structure(
        "atrophic_tubule", translate("Atrophic tubule", "en"), (200, 90, 30), "object", "tubule"
    ),
    Structure("artery", translate("Artery", "en"), (215, 50, 60), "object"),
    Structure("capillary", translate("Peritubular capillary", "en"), (255, 120, 190), "area"),
    Structure("glomerulus", translate("Glomerulus", "en"), (60, 150, 80), "object"),
    Structure(
        "sclerosed_glomerulus",
        translate("Globally sclerosed glomerulus", "en"),
        (20, 80, 110),
        "object",
        "glomerulus",
    ),
    Structure("tuft", translate("Glomerular tuft", "en"), (130, 210, 60), "area", "glomerulus"),
)
"""In drawing order: a later one lies on top."""


def _key(name: str) -> str:
    return class_key(name.replace("_", " "))


_BY_ID = {one.id: one for one in KNOWN_STRUCTURES}
_BY_NAME = {
    _key(name): one for one in KNOWN_STRUCTURES for name in (one.id, one.name, one.name_in("zh"))
}
_OTHER_COLOUR: Colour = (140, 140, 140)


def structure(structure_id: str) -> Structure:
    """Return a known structure, or an area of that name for an id of the user's own."""
    own_name = structure_id.replace("_", " ").capitalize()
    own = Structure(structure_id, own_name, _OTHER_COLOUR, "area")
    return _BY_ID.get(structure_id, own)


def find_structure(name: str) -> Structure | None:
    """Return the known structure of an id or a name, English or Chinese, in letters of any case."""
    return _BY_NAME.get(_key(name))


def own_structures(structure_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids that the package does not know, with those that it knows and are similar."""
    return {
        name: difflib.get_close_matches(name, _BY_ID)
        for name in structure_ids
        if name not in _BY_ID
    }


def in_drawing_order(structure_ids: Iterable[str]) -> Sequence[str]:
    """Return ids from the lowest to the one on top; ids of the user's own lie on top.

    Raises
    ------
    ConfigError
        If there are more than `MAX_STRUCTURES`.
    """
    order = {one.id: number for number, one in enumerate(KNOWN_STRUCTURES)}
    ids = sorted(set(structure_ids), key=lambda one: (order.get(one, len(order)), one))
    if len(ids) > MAX_STRUCTURES:
        raise ConfigError(
            f"a model has at most {MAX_STRUCTURES} structures, got {len(ids)}; leave some out"
        )
    return ids
