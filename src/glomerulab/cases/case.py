"""One case: its calls, its corrections, and the counts and grades that follow from them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case_folder import CaseFacts, CaseFolder, Note, SlideFacts
from glomerulab.cases.corrections import (
    Correction,
    OutdatedCorrection,
    lost_corrections,
    parse_time,
    read_corrections,
)
from glomerulab.cases.counting import Glomerulus, group_glomeruli
from glomerulab.cases.folder_record import Edit
from glomerulab.cases.grading import CaseSummary, summarize_case
from glomerulab.cases.rules import BUILT_IN_RULE_SETS, RuleSet, load_rule_set
from glomerulab.cases.structures import CaseStructures, read_case_structures
from glomerulab.runtime.files import StrPath
from glomerulab.structures.summary import STRUCTURES_FOLDER
from glomerulab.taxonomy import Taxonomy

__all__ = ["Case", "build_cases"]


@dataclass(frozen=True)
class Case:
    """One patient's calls with their counts, before and after corrections."""

    patient: str
    """Patient id, or the slide's if the patient is not known."""
    facts: CaseFacts
    slides: tuple[SlideFacts, ...]
    calls: tuple[GlomerulusCall, ...]
    glomeruli: tuple[Glomerulus, ...]
    summary: CaseSummary
    model_summary: CaseSummary
    """Of the model's calls, without corrections."""
    corrections: tuple[Correction, ...]
    """Those that apply, oldest first."""
    outdated: tuple[OutdatedCorrection, ...]
    """Corrections of this case that no longer apply."""
    unmatched: tuple[OutdatedCorrection, ...] = ()
    """Outdated corrections that match no case. No report may name their images, which may be
    another patient's."""
    edits: tuple[Edit, ...] = ()
    """Changes of the folder since it was written that concern this case."""
    structures: CaseStructures | None = None
    """What outlines of its slides gave; None without outlines."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels of the model."""
        return self.facts.model.taxonomy

    @property
    def latest_corrections(self) -> dict[str, Correction]:
        """The correction that counts, by image id."""
        return {entry.image_id: entry for entry in self.corrections}

    @cached_property
    def glomerulus_numbers(self) -> dict[str, int]:
        """Number of the glomerulus, from 1, by image id; images of several sections share one."""
        return {
            call.image_id: number
            for number, one in enumerate(self.glomeruli, start=1)
            for call in one.calls
        }

    @property
    def confirmed_images(self) -> frozenset[str]:
        """Images whose call was confirmed by a person."""
        called = {call.image_id: call.called for call in self.calls}
        return frozenset(
            image_id
            for image_id, entry in self.latest_corrections.items()
            if entry.labels == called[image_id]
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """Slides, regions and images without a call, which are not counted."""
        return tuple(
            " ".join(filter(None, (one.slide_id, one.name)))
            for one in self.facts.failures
            if one.case == self.patient
        )

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on this case and on all predictions of the folder."""
        return tuple(note for note in self.facts.notes if note.case in {None, self.patient})

    @property
    def key(self) -> str:
        """Unique name of this case in this run of the model."""
        model = self.facts.model.weights_sha256
        return f"{model}/{self.facts.created}/{self.patient}"

    @property
    def last_modified(self) -> dt.datetime:
        """Timestamp of the latest prediction or correction, in UTC.

        Reports carry it instead of the time of writing: the same content gives the same files.
        """
        times = [
            self.facts.created,
            *(one.time for one in self.corrections),
            *(one.row.time for one in (*self.outdated, *self.unmatched)),
        ]
        found = [when.astimezone(dt.UTC) for time in times if (when := parse_time(time))]
        return max(found, default=dt.datetime.fromtimestamp(0, dt.UTC))

    def labels_of(self, call: GlomerulusCall) -> LabelSet:
        """Return the labels of one image: a person's, else the model's.

        Its glomerulus is counted by all its images: see `glomerulus_of`.
        """
        entry = self.latest_corrections.get(call.image_id)
        return call.called if entry is None else entry.labels

    def is_not_assessed(self, call: GlomerulusCall) -> bool:
        """Return whether neither model nor person says what an image shows."""
        return call.called is None and call.image_id not in self.latest_corrections

    def glomerulus_of(self, call: GlomerulusCall) -> Glomerulus:
        """Return the glomerulus of an image."""
        return self.glomeruli[self.glomerulus_numbers[call.image_id] - 1]

    def other_slides_of(self, call: GlomerulusCall) -> tuple[str, ...]:
        """Return the slides of the other images of the same glomerulus."""
        others = (one for one in self.glomerulus_of(call).calls if one.image_id != call.image_id)
        return tuple(dict.fromkeys(one.slide_id or one.image_id for one in others))

    def n_corrections(self, call: GlomerulusCall) -> int:
        """Return the number of corrections of an image, outdated ones included."""
        images = [
            *(entry.image_id for entry in self.corrections),
            *(entry.row.image_id for entry in self.outdated),
        ]
        return images.count(call.image_id)

    def review_reasons_of(self, call: GlomerulusCall) -> tuple[str, ...]:
        """Return why an image needs review; nothing after a correction."""
        return () if call.image_id in self.latest_corrections else call.reasons


def build_cases(
    folder: CaseFolder,
    rule_sets: Sequence[RuleSet] | None = None,
    *,
    structures: StrPath | None = None,
) -> tuple[Case, ...]:
    """Count and grade every case of a predictions folder.

    Parameters
    ----------
    rule_sets : sequence of RuleSet, optional
        By default all built-in ones.
    structures : path, optional
        Folder that ``glomerulab segment`` wrote; its outlines grade what glomeruli cannot. By
        default those of the detector that proposed the glomeruli, if there are any.

    Raises
    ------
    GlomerulabError
        If `structures` holds no outlines, or a file in it is damaged.
    PredictionsError
        If the file of corrections is damaged, or rows were removed from it and the folder was not
        read with `accept_edits`.
    """
    lost = _lost_edits(folder)
    own_structures = folder.folder / STRUCTURES_FOLDER
    if structures is None and folder.facts.detector is not None and own_structures.is_dir():
        structures = own_structures
    rules = rule_sets if rule_sets is not None else [load_rule_set(n) for n in BUILT_IN_RULE_SETS]
    corrections, outdated = read_corrections(folder)
    owners: list[str | None] = [_case_of(one.row.image_id, folder) for one in outdated]
    patients = folder.patients()
    if len(patients) == 1:  # no other case can own them
        owners = [*patients] * len(outdated)

    def outdated_of(owner: str | None) -> tuple[OutdatedCorrection, ...]:
        pairs = zip(outdated, owners, strict=True)
        return tuple(entry for entry, of_case in pairs if of_case == owner)

    cases = []
    for patient, calls in patients.items():
        ids = {call.image_id for call in calls}
        own = tuple(entry for entry in corrections if entry.image_id in ids)
        labels = {entry.image_id: entry.labels for entry in own}
        corrected = group_glomeruli(calls, folder.taxonomy, head=folder.head, corrections=labels)
        predicted = group_glomeruli(calls, folder.taxonomy, head=folder.head)
        slide_ids = {call.slide_id for call in calls}
        slide_ids |= {one.slide_id for one in folder.facts.failures if one.case == patient}
        slide_ids |= {
            one.slide_id
            for one in folder.facts.slides
            if (one.patient_id or one.slide_id) == patient
        }
        reviewed = frozenset(labels)
        outlined = None
        if structures is not None:
            outlined = read_case_structures(Path(structures), slide_ids - {""})
        cases.append(
            Case(
                patient=patient,
                facts=folder.facts,
                slides=tuple(one for one in folder.facts.slides if one.slide_id in slide_ids),
                calls=calls,
                glomeruli=corrected,
                summary=summarize_case(
                    corrected, folder.taxonomy, rules, reviewed=reviewed, structures=outlined
                ),
                model_summary=summarize_case(
                    predicted, folder.taxonomy, rules, structures=outlined
                ),
                corrections=own,
                outdated=outdated_of(patient),
                unmatched=outdated_of(None),
                structures=outlined,
                edits=tuple(one for one in (*folder.edits, *lost) if one.case in {None, patient}),
            )
        )
    return tuple(cases)


def _lost_edits(folder: CaseFolder) -> tuple[Edit, ...]:
    """Return the corrections that were removed since they were acknowledged, by case."""
    lost = lost_corrections(folder)
    by_case: dict[str | None, list[str]] = {}
    for image_id in lost.images:
        by_case.setdefault(_case_of(image_id, folder), []).append(image_id)
    found = [Edit("correction", case, tuple(names)) for case, names in by_case.items()]
    return (*found, *([Edit("order", None)] if lost.is_reordered else []))


def _case_of(image_id: str, folder: CaseFolder) -> str | None:
    """Return the case of an image that may not exist; None if its id names no slide either."""
    slides = {one.slide_id: one.patient_id or one.slide_id for one in folder.facts.slides}
    for name, calls in folder.patients().items():
        if any(call.image_id == image_id for call in calls):
            return name
        slides |= {call.slide_id: name for call in calls}
    named = [slide for slide in slides if slide and image_id.startswith(f"{slide}__")]
    return slides[max(named, key=len)] if named else None
