"""Cases made by hand: calls with stated readings, for rules, reports and formats."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case_folder import (
    CaseFacts,
    CaseFolder,
    FailureFacts,
    ModelFacts,
    Note,
    SlideFacts,
    outline_text,
    read_case_folder,
    write_case_folder,
)
from glomerulab.geometry import Box
from glomerulab.images import write_image
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy

__all__ = [
    "COLOURS",
    "PAPER",
    "WITH_GLOBAL",
    "case",
    "case_folder",
    "doubtful_folder",
    "model_facts",
    "one_call",
    "picture",
    "write_case",
]

COLOURS = {
    "normal": (225, 150, 190),
    "mspgn": (150, 90, 170),
    "fsg": (205, 175, 205),
    "cgn": (120, 60, 110),
}

PAPER = load_taxonomy("paper")

WITH_GLOBAL = Taxonomy(
    "with_global",
    (*PAPER.labels, Label(id="gs", name="Global sclerosis", name_zh="球性硬化", hpo="HP:0004737")),
)


def one_call(
    name: str,
    called: str = "normal",
    *,
    either: str = "",
    reasons: tuple[str, ...] = (),
    taxonomy: Taxonomy = PAPER,
    slide: str = "s1",
    region: str | None = None,
    patient: str | None = "p1",
) -> GlomerulusCall:
    """Make a call; `called` and `either` are label ids joined by +."""
    labels = frozenset(filter(None, called.split("+")))
    unsure = frozenset(filter(None, either.split("+")))
    states = {
        key: "either" if key in unsure else "present" if key in labels else "absent"
        for key in taxonomy.label_ids
    }
    rest = len(taxonomy.labels) - len(labels)
    probabilities = {
        key: 0.9 / len(labels) if key in labels else 0.1 / rest for key in taxonomy.label_ids
    }
    number = sum(map(ord, name))
    return GlomerulusCall(
        name,
        slide,
        patient,
        region or name,
        "PAS",
        probabilities,
        labels,
        states,
        reasons or (("uncertain",) if unsure else ()),
        Box(100 + number % 700, 80 + number * 7 % 500, 120, 130),
    )


def case(*groups: tuple[int, str], taxonomy: Taxonomy = PAPER) -> list[GlomerulusCall]:
    """Make `n` certain calls of each label set."""
    return [
        one_call(f"{labels}-{place}", labels, taxonomy=taxonomy)
        for n, labels in groups
        for place in range(n)
    ]


def model_facts(taxonomy: Taxonomy = PAPER, **changes: object) -> ModelFacts:
    """Make the facts of a model that never was."""
    facts = {
        "model": "improved_seresnet50",
        "head": "softmax",
        "taxonomy_name": taxonomy.name,
        "labels": taxonomy.labels,
        "weights_sha256": "ab" * 32,
        "run": "run",
        "temperature": 1.3,
        "coverage": 0.9,
        "conformal_threshold": 0.41,
        "n_validation": 120,
        "distance_threshold": 21.5,
        "sharpness_threshold": -1.2,
        "n_training_images": 640,
        "n_training_patients": 31,
        "stains_seen": {"HE": 300, "PAS": 340},
        "trained_on_synthetic": True,
        "normalized_to": ("HE", "PAS"),
        "test_summary": "101 of 120 held-out images right (84%), of 8 patients",
    }
    return ModelFacts.model_validate(facts | changes)


def write_case(
    folder: Path,
    calls: Sequence[GlomerulusCall],
    *,
    taxonomy: Taxonomy = PAPER,
    slides: Sequence[SlideFacts] = (),
    **changes: object,
) -> Path:
    """Write calls as ``predict`` does."""
    keys = taxonomy.label_ids
    rows = []
    for call in calls:
        row = {
            "image_id": call.image_id,
            "patient_id": call.patient_id,
            "slide_id": call.slide_id,
            "region_id": call.region_id,
            "stain": call.stain,
            "image_path": call.image_path,
            "saliency_path": call.saliency_path,
            "reasons": " ".join(call.reasons),
            "outline": outline_text(call.outline),
        }
        row |= {} if call.mpp is None else {"mpp": call.mpp}
        if call.box is not None:
            row |= {"x": call.box.x, "y": call.box.y}
            row |= {"width": call.box.width, "height": call.box.height}
        for key in keys:
            row |= {f"label_{key}": None, f"probability_{key}": call.probabilities[key]}
            is_called = int(key in (call.called or ()))
            row |= {f"called_{key}": is_called, f"state_{key}": call.states[key]}
        rows.append(row)
    facts = CaseFacts(
        created="2026-11-24T20:00:00+00:00",
        glomerulab="0.1.0",
        model=model_facts(taxonomy, **changes),
        slides=tuple(slides),
        is_synthetic=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_case_folder(folder, facts, pd.DataFrame(rows))
    return folder


def picture(rng: np.random.Generator, label: str, size: int = 48) -> np.ndarray:
    """Noise around the colour of a label: a network learns it in no time."""
    noise = rng.normal(COLOURS[label], 30, (size, size, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def case_folder(home: Path) -> CaseFolder:
    """Two patients, three slides, uncertain calls, crops and maps that can be read."""
    rng = np.random.default_rng(5)
    calls = [
        one_call("a1", "cgn", slide="s1", region="g1"),
        one_call("a2", "normal", slide="s2", region="g1"),
        one_call("b", "mspgn", either="normal+mspgn", slide="s1"),
        one_call("c", "fsg", reasons=("out_of_distribution", "out_of_focus"), slide="s1"),
        one_call("d", "normal", slide="s2"),
        one_call('<i>"e"</i> & 名', "normal", slide="s1"),
        one_call("z", "normal", slide="s9", patient="p/2"),
    ]
    home.mkdir()
    complete = []
    for place, call in enumerate(calls):
        label = next(iter(call.called or ()))
        write_image(picture(rng, label, 96), home / f"crop{place}.png")
        box = call.box
        corners = ((10.0, 10.0), (100.0, 12.0), (50.5, 110.0))
        outline = tuple((box.x + x, box.y + y) for x, y in corners)
        complete.append(replace(call, image_path=f"crop{place}.png", outline=outline))
    slides = []
    for name, patient in (("s1", "p1"), ("s2", "p1"), ("s9", "p/2")):
        write_image(picture(rng, "normal", 200), home / f"{name}.jpg")
        slides.append(
            SlideFacts(
                slide_id=name,
                file_name=f"{name}.svs",
                patient_id=patient,
                stain="PAS",
                width=1000,
                height=1000,
                mpp=0.5,
                bounds_offset=(40.0, 20.0),
                map_path=f"{name}.jpg",
            )
        )
    return read_case_folder(write_case(home, complete, slides=slides))


def doubtful_folder(folder: CaseFolder) -> CaseFolder:
    """The same with a proposed region, a note and failures; patient p3 has nothing but failures."""
    facts = folder.facts.model_copy(
        update={
            "notes": (Note(en="Crops were enlarged.", zh="图像经放大。"),),
            "failures": (
                FailureFacts(case="p1", slide_id="s1", name="g 9"),
                FailureFacts(case="p3", slide_id="s7", name=""),
            ),
        }
    )
    first, *others = folder.calls
    return replace(folder, facts=facts, calls=(replace(first, is_proposed=True), *others))
