from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glomerulab.errors import PredictionsError
from glomerulab.inference.calibration import ModelCalibration, read_calibration
from glomerulab.inference.decide import decide
from glomerulab.inference.image_predictions import ImagePrediction
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


@pytest.fixture
def calibration(trained: Path) -> ModelCalibration:
    facts = read_calibration(trained).facts.model_copy(
        update={
            "temperature": 2.0,
            "conformal_threshold": 0.2,
            "distance_threshold": 5.0,
            "sharpness_threshold": -1.0,
        }
    )
    return replace(read_calibration(trained), facts=facts)


def one(
    calibration,
    logits,
    *,
    distance=1.0,
    sharp=0.0,
    stain="PAS",
    status=None,
    head="softmax",
    reasons=(),
):
    return decide(
        [ImagePrediction(tuple(map(float, logits)), distance, sharp, reasons)],
        stains=[stain],
        stain_statuses=[status],
        calibration=calibration,
        taxonomy=PAPER,
        head=head,
    )[0]


def test_a_certain_prediction_is_called_and_not_referred(calibration: ModelCalibration) -> None:
    sure = one(calibration, [0, 0, 0, 8])
    assert sure.called == {"cgn"}
    assert sure.states == {"normal": "absent", "mspgn": "absent", "fsg": "absent", "cgn": "present"}
    assert sure.reasons == ()


def test_probabilities_are_scaled_by_the_temperature(calibration: ModelCalibration) -> None:
    found = one(calibration, [0, 0, 0, 2]).probabilities
    assert found["cgn"] == pytest.approx(np.e / (np.e + 3))
    assert sum(found.values()) == pytest.approx(1)


def test_two_labels_in_the_conformal_set_are_uncertain(calibration: ModelCalibration) -> None:
    torn = one(calibration, [5, 5.1, 0, 0])
    assert torn.states == {"normal": "either", "mspgn": "either", "fsg": "absent", "cgn": "absent"}
    assert torn.reasons == ("uncertain",)


def test_an_empty_conformal_set_leaves_every_label_open(calibration: ModelCalibration) -> None:
    facts = calibration.facts.model_copy(update={"conformal_threshold": 0.99})
    empty = one(replace(calibration, facts=facts), [1, 1, 1, 1.5])
    assert set(empty.states.values()) == {"either"}


def test_under_sigmoid_each_label_has_its_own_set(calibration: ModelCalibration) -> None:
    found = one(calibration, [-6, 0.1, 6, -6], head="sigmoid")
    assert found.called == {"mspgn", "fsg"}
    assert found.states == {
        "normal": "absent",
        "mspgn": "either",
        "fsg": "present",
        "cgn": "absent",
    }


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"distance": 5.1}, "out_of_distribution"),
        ({"distance": float("nan")}, "out_of_distribution"),
        ({"sharp": -1.1}, "out_of_focus"),
        ({"sharp": float("nan")}, "out_of_focus"),
        ({"stain": "PASM"}, "stain_unseen"),
        ({"stain": None}, "stain_unknown"),
        ({"status": "not_tissue"}, "not_normalized"),
        ({"status": "blank"}, "no_tissue"),
        ({"reasons": ("other_scale",)}, "other_scale"),
        ({"status": "one_stain"}, "not_normalized"),
        ({"status": "no_target"}, "not_normalized"),
    ],
)
def test_each_quality_gate_gives_its_reason(
    calibration: ModelCalibration, given, reason: str
) -> None:
    assert one(calibration, [0, 0, 0, 8], **given).reasons == (reason,)


@pytest.mark.parametrize(
    "given",
    [
        {"distance": 7.6},
        {"status": "blank"},
        {"reasons": ("no_tissue",)},
        {"reasons": ("too_small",)},
    ],
)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_what_is_no_glomerulus_is_not_called_however_sure_the_model_is(
    calibration: ModelCalibration, given, head
) -> None:
    found = one(calibration, [-8, -8, -8, 8], head=head, **given)
    assert not found.is_assessed
    assert found.called == frozenset()
    assert set(found.states.values()) == {"either"}


@pytest.mark.parametrize("given", [{"distance": 7.4}, {"sharp": -9.0}, {"stain": "PASM"}])
def test_a_doubtful_glomerulus_is_called_and_referred(calibration: ModelCalibration, given) -> None:
    found = one(calibration, [0, 0, 0, 8], **given)
    assert found.is_assessed
    assert found.called == {"cgn"}
    assert found.reasons


def test_values_on_the_threshold_are_not_referred(calibration: ModelCalibration) -> None:
    assert (
        one(calibration, [0, 0, 0, 8], distance=5.0, sharp=-1.0, status="normalized").reasons == ()
    )


def test_conflicting_labels_are_not_both_called_and_are_referred(
    calibration: ModelCalibration,
) -> None:
    torn = one(calibration, [5, -8, -8, 6], head="sigmoid")
    assert torn.called == {"cgn"}
    assert torn.states == {"normal": "either", "mspgn": "absent", "fsg": "absent", "cgn": "either"}
    assert torn.reasons == ("uncertain",)


def test_a_label_in_conflict_with_several_is_dropped_only_if_less_likely(
    calibration: ModelCalibration,
) -> None:
    assert one(calibration, [7, -8, 5, 6], head="sigmoid").called == {"normal"}
    assert one(calibration, [5, -8, 6, 7], head="sigmoid").called == {"fsg", "cgn"}


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(calibration: ModelCalibration, head, value) -> None:
    with pytest.raises(PredictionsError, match="not a finite number"):
        one(calibration, [0, 0, value, 1], head=head)
