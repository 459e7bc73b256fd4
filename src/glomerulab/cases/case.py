"""One case, ready to be told: what was called, what people changed, what it adds up to."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case_folder import CaseFacts, CaseFolder, Note, SlideFacts
from glomerulab.cases.corrections import (
    Correction,
    OutdatedCorrection,
    outdated_corrections,
    parse_time,
    read_corrections,
)
from glomerulab.cases.counting import Glomerulus, group_glomeruli
from glomerulab.cases.rules import BUILT_IN_RULE_SETS, RuleSet, load_rule_set
from glomerulab.cases.summary import CaseSummary, summarize_case
from glomerulab.taxonomy import Taxonomy

__all__ = ["Case", "build_cases"]


@dataclass(frozen=True)
class Case:
    """A case with its counts."""

    patient: str
    """Patient id, or the slide's where the patient is not known."""
    facts: CaseFacts
    slides: tuple[SlideFacts, ...]
    calls: tuple[GlomerulusCall, ...]
    glomeruli: tuple[Glomerulus, ...]
    summary: CaseSummary
    original: CaseSummary
    """As the model alone has it."""
    corrections: tuple[Correction, ...]
    """Of this case, oldest first."""
    lost: tuple[OutdatedCorrection, ...]
    """Entries of this case that no longer apply."""
    unmatched_corrections: tuple[OutdatedCorrection, ...] = ()
    """Such entries of which nobody knows the case. No report may name their images: they may be
    another patient's."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels of the model."""
        return self.facts.model.taxonomy

    @property
    def latest_corrections(self) -> dict[str, Correction]:
        """By image, the entry that counts."""
        return {entry.image_id: entry for entry in self.corrections}

    @cached_property
    def glomerulus_numbers(self) -> dict[str, int]:
        """By image, which of `glomeruli` it shows, from 1: several sections may show the same."""
        return {
            call.image_id: number
            for number, one in enumerate(self.glomeruli, start=1)
            for call in one.calls
        }

    @property
    def confirmed(self) -> frozenset[str]:
        """Images of which a person said what the model had said."""
        called = {call.image_id: call.called for call in self.calls}
        return frozenset(
            key for key, e in self.latest_corrections.items() if e.reading == called[key]
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """Slides, regions and images of this case that are in no count."""
        return tuple(
            " ".join(filter(None, (one.slide_id, one.name)))
            for one in self.facts.failures
            if one.case == self.patient
        )

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on the predictions that are this case's, or everybody's."""
        return tuple(note for note in self.facts.notes if note.case in {None, self.patient})

    @property
    def mark(self) -> str:
        """Tells this case, as predicted this once, from all others."""
        model = self.facts.model.weights_sha256
        return f"{model}/{self.facts.created}/{self.patient}"

    @property
    def last_modified(self) -> dt.datetime:
        """When the newest thing it tells was said: the predictions, or a person's word; UTC.

        Not when it is written: the same content gives the same files.
        """
        times = [
            self.facts.created,
            *(one.time for one in self.corrections),
            *(one.row.time for one in (*self.lost, *self.unmatched_corrections)),
        ]
        found = [when.astimezone(dt.UTC) for time in times if (when := parse_time(time))]
        return max(found, default=dt.datetime.fromtimestamp(0, dt.UTC))

    def reading_of(self, call: GlomerulusCall) -> LabelSet:
        """Return what one image shows: a person's word, else the call.

        What counts of its glomerulus rests on all images of it: see `glomerulus_of`.
        """
        entry = self.latest_corrections.get(call.image_id)
        return call.called if entry is None else entry.reading

    def glomerulus_of(self, call: GlomerulusCall) -> Glomerulus:
        """Return the glomerulus that an image shows, with what it counts as."""
        return self.glomeruli[self.glomerulus_numbers[call.image_id] - 1]

    def other_slides_of(self, call: GlomerulusCall) -> tuple[str, ...]:
        """Return the slides of the other images of the same glomerulus."""
        others = (one for one in self.glomerulus_of(call).calls if one.image_id != call.image_id)
        return tuple(dict.fromkeys(one.slide_id or one.image_id for one in others))

    def n_corrections(self, call: GlomerulusCall) -> int:
        """Return how many entries of an image there are, whether they apply or not."""
        named = [
            *(entry.image_id for entry in self.corrections),
            *(lost.row.image_id for lost in self.lost),
        ]
        return named.count(call.image_id)

    def review_reasons_of(self, call: GlomerulusCall) -> tuple[str, ...]:
        """Return why a human must look at an image: nothing, once one has."""
        return () if call.image_id in self.latest_corrections else call.reasons


def build_cases(folder: CaseFolder, rule_sets: Sequence[RuleSet] | None = None) -> tuple[Case, ...]:
    """Count every case of a predictions folder.

    Parameters
    ----------
    folder : CaseFolder
    rule_sets : sequence of RuleSet, optional
        By default all built-in ones.

    Returns
    -------
    tuple of ReportedCase
        One per patient.
    """
    rules = rule_sets if rule_sets is not None else [load_rule_set(n) for n in BUILT_IN_RULE_SETS]
    corrections, lost = read_corrections(folder), outdated_corrections(folder)
    owners: list[str | None] = [_owner(one.row.image_id, folder) for one in lost]
    patients = folder.patients()
    if len(patients) == 1:  # then it is nobody else's
        owners = [*patients] * len(lost)
    cases = []
    for patient, calls in patients.items():
        ids = {call.image_id for call in calls}
        mine = tuple(entry for entry in corrections if entry.image_id in ids)
        said: dict[str, LabelSet] = {entry.image_id: entry.reading for entry in mine}
        glomeruli = group_glomeruli(
            calls, folder.taxonomy, head=folder.head, latest_corrections=said
        )
        alone = group_glomeruli(calls, folder.taxonomy, head=folder.head)
        slide_ids = {call.slide_id for call in calls}
        slide_ids |= {one.slide_id for one in folder.facts.failures if one.case == patient}
        slide_ids |= {
            one.slide_id
            for one in folder.facts.slides
            if (one.patient_id or one.slide_id) == patient
        }
        cases.append(
            Case(
                patient=patient,
                facts=folder.facts,
                slides=tuple(one for one in folder.facts.slides if one.slide_id in slide_ids),
                calls=calls,
                glomeruli=glomeruli,
                summary=summarize_case(glomeruli, folder.taxonomy, rules, reviewed=frozenset(said)),
                original=summarize_case(alone, folder.taxonomy, rules),
                corrections=mine,
                lost=_of(patient, lost, owners),
                unmatched_corrections=_of(None, lost, owners),
            )
        )
    return tuple(cases)


def _of(
    case: str | None, lost: Sequence[OutdatedCorrection], owners: Sequence[str | None]
) -> tuple[OutdatedCorrection, ...]:
    return tuple(one for one, owner in zip(lost, owners, strict=True) if owner == case)


def _owner(image_id: str, folder: CaseFolder) -> str | None:
    """Return the case of an image that may be gone; None where its id names no slide either."""
    slides = {one.slide_id: one.patient_id or one.slide_id for one in folder.facts.slides}
    for name, calls in folder.patients().items():
        if any(call.image_id == image_id for call in calls):
            return name
        slides |= {call.slide_id: name for call in calls}
    named = [slide for slide in slides if slide and image_id.startswith(f"{slide}__")]
    return slides[max(named, key=len)] if named else None
