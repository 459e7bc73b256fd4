"""From images to glomeruli: what was called, and every reading that cannot be ruled out.

Pure: a case is a list of calls, its glomeruli are counted once each, also where a glomerulus
stands on several sections under one id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glomerulab.calls import GlomerulusCall, Reading, merged_readings, possible_readings
from glomerulab.predictions import Head
from glomerulab.taxonomy import Taxonomy

__all__ = ["Glomerulus", "glomeruli_of"]


@dataclass(frozen=True)
class Glomerulus:
    """One glomerulus of a case, on one section or several."""

    calls: tuple[GlomerulusCall, ...]
    called: Reading
    """What counts: the call, or a person's where there is one."""
    possible: frozenset[Reading]
    """Every reading that cannot be ruled out; `called` among them."""

    @property
    def is_certain(self) -> bool:
        """Whether there is only one reading."""
        return len(self.possible) == 1


def glomeruli_of(
    calls: Sequence[GlomerulusCall],
    taxonomy: Taxonomy,
    *,
    head: Head,
    overruled: dict[str, Reading] | None = None,
) -> tuple[Glomerulus, ...]:
    """Count what is one glomerulus once.

    Parameters
    ----------
    calls : sequence of GlomerulusCall
        Of one patient, from any number of slides.
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}
    overruled : dict of str to reading, optional
        What a person said, by image id; it is certain.

    Returns
    -------
    tuple of Glomerulus
        In the order of the calls.

    Notes
    -----
    Images of different slides with the same region id are one glomerulus. A region id that is a
    plain number joins nothing: that is what regions without a name are given.
    """
    groups: dict[object, list[GlomerulusCall]] = {}
    for call in calls:
        groups.setdefault(_identity(call), []).append(call)
    return tuple(
        _glomerulus(tuple(group), taxonomy, head, overruled or {}) for group in groups.values()
    )


def _identity(call: GlomerulusCall) -> object:
    region = call.region_id
    if region is None or region.isdecimal():
        return (call.image_id,)
    return call.patient_id, region


def _glomerulus(
    calls: tuple[GlomerulusCall, ...],
    taxonomy: Taxonomy,
    head: Head,
    overruled: dict[str, Reading],
) -> Glomerulus:
    sections: list[frozenset[Reading]] = []
    settled: list[frozenset[Reading]] = []
    for call in calls:
        if call.image_id in overruled:
            settled.append(frozenset({overruled[call.image_id]}))
            sections.append(settled[-1])
        else:
            settled.append(frozenset({call.called}))
            sections.append(possible_readings(call, taxonomy, head=head))
    possible = merged_readings(sections, taxonomy)
    called = _likeliest(merged_readings(settled, taxonomy), calls)
    return Glomerulus(calls, called, possible | {called})


def _likeliest(readings: frozenset[Reading], calls: tuple[GlomerulusCall, ...]) -> Reading:
    """Of calls that exclude each other on different sections, take the surest."""
    if len(readings) == 1:
        return next(iter(readings))
    return max(
        (reading for reading in readings if reading is not None),
        key=lambda r: (max(call.probabilities[key] for call in calls for key in r), sorted(r)),
    )
