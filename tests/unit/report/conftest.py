from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glomerulab.cases.case_folder import CaseFolder, Note, SlideFacts, Unjudged, read_case_folder
from glomerulab.images import write_image
from tests.support.cases import one_call, picture, write_case


@pytest.fixture
def folder(tmp_path: Path) -> CaseFolder:
    """Two patients, three slides, every kind of doubt, crops and maps that can be seen."""
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
    home = tmp_path / "predictions"
    home.mkdir()
    whole = []
    for place, call in enumerate(calls):
        label = next(iter(call.called))
        write_image(picture(rng, label, 96), home / f"crop{place}.png")
        box = call.box
        corners = ((10.0, 10.0), (100.0, 12.0), (50.5, 110.0))
        outline = tuple((box.x + x, box.y + y) for x, y in corners)
        whole.append(replace(call, image_path=f"crop{place}.png", outline=outline))
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
    return read_case_folder(write_case(home, whole, slides=slides))


@pytest.fixture
def doubtful(folder: CaseFolder) -> CaseFolder:
    """The same, with a region that a detector proposed, a note, and what could not be judged.

    Of patient p3 nothing could.
    """
    facts = folder.facts.model_copy(
        update={
            "notes": (Note(en="Crops were enlarged.", zh="图像经放大。"),),
            "unjudged": (
                Unjudged(case="p1", slide_id="s1", name="g 9"),
                Unjudged(case="p3", slide_id="s7", name=""),
            ),
        }
    )
    first, *others = folder.calls
    return replace(folder, facts=facts, calls=(replace(first, is_proposed=True), *others))
