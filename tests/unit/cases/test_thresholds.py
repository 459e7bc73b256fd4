"""States and reasons of a table are those that its numbers give."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.thresholds import follows_thresholds
from glomerulab.errors import PredictionsError
from glomerulab.inference.decide import decide
from glomerulab.inference.image_predictions import ImagePrediction
from glomerulab.reports.case.warnings import case_warnings
from tests.support.cases import PAPER, model_facts, one_call, write_case

PLACES = st.sampled_from([4.0, 21.4999, 21.5, 21.6, 32.2, 32.3, 90.0, float("nan")])


def decided(logits, *, distance=3.0, sharpness=0.5, stain="PAS", reasons=(), **facts):
    """Return the facts and the call that `predict` writes, with the digits of its table."""
    model = model_facts(**facts)
    (done,) = decide(
        [ImagePrediction(tuple(logits), distance, sharpness, reasons)],
        stains=[stain],
        stain_statuses=[None],
        calibration=SimpleNamespace(facts=model),
        taxonomy=PAPER,
        head=model.head,
    )
    call = replace(
        one_call("a"),
        stain=stain,
        probabilities=done.probabilities,
        called=done.called if done.is_assessed else None,
        states=done.states,
        reasons=done.reasons,
        distance=round(distance, 4),
        sharpness=round(sharpness, 4),
    )
    return model, call


@settings(max_examples=300)
@given(
    logits=st.lists(st.floats(-12, 12), min_size=4, max_size=4),
    distance=PLACES,
    sharpness=st.sampled_from([-9.0, -1.20004, -1.2, -1.19996, 2.0, float("nan")]),
    stain=st.sampled_from(["PAS", "MASSON", None]),
    reasons=st.sampled_from([(), ("too_small",), ("other_scale",)]),
    head=st.sampled_from(["softmax", "sigmoid"]),
    temperature=st.floats(0.3, 6),
    threshold=st.floats(0.02, 0.9),
)
def test_what_predict_decides_follows_also_with_fewer_digits(
    logits, distance, sharpness, stain, reasons, head, temperature, threshold
) -> None:
    model, call = decided(
        logits,
        distance=distance,
        sharpness=sharpness,
        stain=stain,
        reasons=reasons,
        head=head,
        temperature=temperature,
        conformal_threshold=threshold,
    )
    assert follows_thresholds(call, model)
    cut = {key: float(f"{p:.15g}") for key, p in call.probabilities.items()}
    assert follows_thresholds(replace(call, probabilities=cut), model)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("logits", "distance", "change"),
    [
        ([0, 0, 0, 8], 3, {"reasons": ("uncertain",)}),
        ([0, 0, 0, 8], 3, {"states": dict.fromkeys(PAPER.label_ids, "either")}),
        ([0, 0, 0, 8], 3, {"states": {**dict.fromkeys(PAPER.label_ids, "absent")}}),
        ([5, 5.1, 0, 0], 3, {"reasons": ()}),
        ([0, 0, 0, 8], 25, {"reasons": ()}),
        ([0, 0, 0, 8], 3, {"reasons": ("out_of_distribution",)}),
        ([0, 0, 0, 8], 3, {"reasons": ("out_of_focus",)}),
        ([0, 0, 0, 8], 3, {"reasons": ("stain_unseen",)}),
        ([0, 0, 0, 8], 25, {"reasons": ("out_of_distribution", "no_glomerulus"), "called": None}),
        ([0, 0, 0, 8], 60, {"states": dict.fromkeys(PAPER.label_ids, "absent")}),
    ],
)
def test_a_changed_state_or_reason_is_seen(head, logits, distance, change) -> None:
    model, call = decided(logits, distance=distance, head=head)
    assert follows_thresholds(call, model)
    changed = replace(call, **change)
    assert changed == call or not follows_thresholds(changed, model)


def test_a_reading_that_does_not_follow_is_refused_by_default_and_told_first(tmp_path) -> None:
    folder = write_case(tmp_path / "p", [one_call("a"), one_call("b", "cgn")])
    path = folder / "predictions.csv"
    table = pd.read_csv(path)
    model = read_case_folder(folder).facts.model
    write_table(folder, table.assign(distance=3.0, sharpness=0.5))
    assert read_case_folder(folder).edits == ()
    table = table.assign(distance=[model.distance_threshold * 1.2, 3.0], sharpness=0.5)
    write_table(folder, table)
    with pytest.raises(PredictionsError, match=r"states or reasons.*'a' in line 2"):
        read_case_folder(folder)
    (case,) = build_cases(read_case_folder(folder, accept_edits=True), [])
    first = case_warnings(case, "en")[0]
    assert (first.kind, "a" in first.text) == ("edited", True)


def write_table(folder, table: pd.DataFrame) -> None:
    """Write a table with its record, as a program would that decides otherwise."""
    from glomerulab.cases.case_folder import write_case_folder

    facts = read_case_folder(folder, accept_edits=True).facts
    write_case_folder(folder, facts, table)


def test_a_table_of_an_earlier_version_without_measures_is_read(tmp_path) -> None:
    folder = write_case(tmp_path / "p", [one_call("a", either="cgn")])
    (call,) = read_case_folder(folder).calls
    assert call.distance is None
    assert not np.isfinite(replace(call, distance=float("nan")).distance)
