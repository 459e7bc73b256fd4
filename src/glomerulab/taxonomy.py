"""The labels of a task: ids, names, codes and mutual exclusions.

A taxonomy is a TOML file or the name of a built-in one.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glomerulab.errors import TaxonomyError
from glomerulab.runtime.files import atomic_write, read_utf8
from glomerulab.runtime.messages import did_you_mean, first_problem

__all__ = [
    "BUILT_IN_TAXONOMIES",
    "Label",
    "Taxonomy",
    "definition_of",
    "load_taxonomy",
    "write_taxonomy",
]

BUILT_IN_TAXONOMIES = ("paper",)
"""Names that `load_taxonomy` accepts besides a path."""


class Label(BaseModel):
    """One label of a taxonomy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Column name in manifests and predictions."""
    name: str
    """English display name."""
    name_zh: str | None = None
    """Chinese display name, and the key in the paper's label JSON."""
    hpo: str | None = Field(default=None, pattern=r"^HP:\d{7}$")
    """Code in the Human Phenotype Ontology."""
    excludes: tuple[str, ...] = ()
    """Ids of the labels that cannot be set together with this one."""
    definition: str | None = None
    """What a reader must see to set the label; the pages show it."""
    definition_zh: str | None = None


class _TaxonomyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    labels: tuple[Label, ...] = Field(min_length=2)


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of labels; tables, scores and figures keep the order."""

    name: str
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        """Refuse duplicate ids and exclusions of labels that do not exist."""
        ids = [label.id for label in self.labels]
        twice = sorted({label_id for label_id in ids if ids.count(label_id) > 1})
        if twice:
            raise TaxonomyError(
                f"the taxonomy has label ids that are given twice: {', '.join(twice)}",
                where=self.name,
            )
        for label in self.labels:
            unknown = sorted(set(label.excludes) - set(ids))
            if unknown:
                raise TaxonomyError(
                    f"label {label.id!r} excludes unknown labels: {', '.join(unknown)}",
                    where=self.name,
                )

    @cached_property
    def label_ids(self) -> tuple[str, ...]:
        """Ids in order."""
        return tuple(label.id for label in self.labels)

    @cached_property
    def exclusions(self) -> npt.NDArray[np.bool_]:
        """Pairs of labels that cannot be set together: symmetric, bool, shape (K, K)."""
        named = [[other in label.excludes for other in self.label_ids] for label in self.labels]
        one_way = np.array(named, dtype=np.bool_).reshape(len(self.labels), len(self.labels))
        return one_way | one_way.T

    def find(self, name: str) -> Label:
        """Return the label with an id or a display name in either language.

        Case and surrounding space are ignored.

        Raises
        ------
        TaxonomyError
            If there is no such label; the message lists the known ones.
        """
        wanted = name.strip().casefold()
        for label in self.labels:
            names = (label.id, label.name, label.name_zh or "")
            if wanted in (known.casefold() for known in names if known):
                return label
        known = ", ".join(self.label_ids)
        raise TaxonomyError(
            f"unknown label {name!r}{did_you_mean(name, self.label_ids)} "
            f"(labels of the taxonomy {self.name}: {known})"
        )

    def conflicts(self, flags: Mapping[str, int | None]) -> list[tuple[str, str]]:
        """Return the pairs of labels that are both set although one excludes the other.

        Parameters
        ----------
        flags : mapping of str to int or None
            Label id to 1, 0 or None for unknown.
        """
        present = [label for label in self.labels if flags.get(label.id) == 1]
        return [
            (first.id, second.id)
            for place, first in enumerate(present)
            for second in present[place + 1 :]
            if second.id in first.excludes or first.id in second.excludes
        ]

    def implied(self, flags: Mapping[str, int | None]) -> dict[str, int | None]:
        """Return every label in order; an unknown one that a set label excludes is 0.

        Parameters
        ----------
        flags : mapping of str to int or None
            Label id to 1, 0 or None for unknown, as is an absent label.
        """
        is_set = np.array([flags.get(label_id) == 1 for label_id in self.label_ids], dtype=np.bool_)
        return {
            label_id: 0 if (excludes & is_set).any() and flag is None else flag
            for label_id, excludes in zip(self.label_ids, self.exclusions, strict=True)
            for flag in (flags.get(label_id),)
        }


def load_taxonomy(name_or_path: str | Path) -> Taxonomy:
    """Read a taxonomy by built-in name or from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        One of `BUILT_IN_TAXONOMIES`, or the path of a file.

    Raises
    ------
    TaxonomyError
        If there is no such name or file, or it breaks a rule; the message names the key.
    """
    where = str(name_or_path)
    if where in BUILT_IN_TAXONOMIES:
        text = resources.files("glomerulab.taxonomies").joinpath(f"{where}.toml").read_text("utf-8")
    else:
        built_in = ", ".join(BUILT_IN_TAXONOMIES)
        text = read_utf8(
            name_or_path,
            "taxonomy",
            error=TaxonomyError,
            way_out=f"give a TOML file or one of the built-in ones ({built_in})",
        )
    try:
        parsed = _TaxonomyFile.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise TaxonomyError(first_problem(error, _TaxonomyFile), where=where) from error
    except (ValueError, RecursionError) as error:  # not TOML, or a number of too many digits
        raise TaxonomyError(f"the taxonomy is not valid TOML: {error}", where=where) from error
    return Taxonomy(parsed.name, parsed.labels)


def definition_of(label: Label, language: Literal["en", "zh"]) -> str:
    """Return the taxonomy's own definition, else the built-in one of the label's HPO code or id.

    Empty if there is none.
    """
    own = label.definition_zh if language == "zh" else label.definition
    known = _definitions()
    built_in = known.get(label.hpo or "") or known.get(label.id) or {}
    return own or label.definition or built_in.get(language, "")


@cache
def _definitions() -> Mapping[str, Mapping[str, str]]:
    text = resources.files("glomerulab.taxonomies").joinpath("definitions.toml").read_text("utf-8")
    return tomllib.loads(text)


def write_taxonomy(taxonomy: Taxonomy, path: Path) -> None:
    """Write a taxonomy as TOML that `load_taxonomy` reads back equal."""
    labels = [
        label.model_dump(exclude_none=True, exclude_defaults=True) for label in taxonomy.labels
    ]
    with atomic_write(path) as temporary:
        temporary.write_bytes(tomli_w.dumps({"name": taxonomy.name, "labels": labels}).encode())
