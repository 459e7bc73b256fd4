import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import TrainingError
from glomerulab.training.batch_plan import (
    balanced_sample,
    check_shares,
    plan_epoch,
    share_of_process,
    steps_per_epoch,
)
from glomerulab.training.config import TrainConfig

NAN = float("nan")
LABELS = np.eye(2)[[0] * 18 + [1] * 2]


def _config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"manifest": "m", "out": "o", "batch_size": 8} | changes)


def test_every_image_is_in_one_step_and_no_step_is_tiny() -> None:
    steps = plan_epoch(LABELS, _config(accumulate=2), 3)
    assert len(steps) == steps_per_epoch(20, _config()) == 3
    assert [[len(part) for part in step] for step in steps] == [[4, 3], [4, 3], [3, 3]]
    keys = [key for step in steps for part in step for key in part]
    assert sorted(key.row for key in keys) == list(range(20))
    assert {key.epoch for key in keys} == {3}


def test_epochs_differ_and_each_is_reproducible() -> None:
    assert plan_epoch(LABELS, _config(), 0) == plan_epoch(LABELS, _config(), 0)
    assert plan_epoch(LABELS, _config(), 0) != plan_epoch(LABELS, _config(), 1)
    assert plan_epoch(LABELS, _config(), 0) != plan_epoch(LABELS, _config(seed=1), 0)


def test_sampling_shows_the_rare_class_as_often_as_the_frequent_one() -> None:
    steps = plan_epoch(LABELS, _config(balance="sampling"), 0)
    rows = [key.row for step in steps for part in step for key in part]
    assert len(rows) == 20
    assert sum(row >= 18 for row in rows) == 10


def test_the_shares_of_all_processes_are_the_batch() -> None:
    parts = [part for step in plan_epoch(LABELS, _config(), 0) for part in step]
    shares = [share_of_process(parts, process=p, n_processes=3) for p in range(3)]
    for part, *of_each in zip(parts, *shares, strict=True):
        assert sorted(part) == sorted(key for share in of_each for key in share)


def test_a_process_without_an_image_is_refused() -> None:
    check_shares(17, _config(batch_size=16), n_processes=8)
    with pytest.raises(TrainingError, match=r"17 training images in batches of 16"):
        check_shares(17, _config(batch_size=16), n_processes=9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 2**31))
def test_the_classes_are_drawn_equally_often(classes: list[int], seed: int) -> None:
    labels = np.eye(4)[classes]
    drawn = balanced_sample(labels, np.random.default_rng(seed))
    assert len(drawn) == len(classes)
    counts = np.bincount(np.asarray(classes)[drawn], minlength=4)
    there = np.unique(classes)
    assert counts.sum() == counts[there].sum()
    times = np.bincount(drawn, minlength=len(classes))
    for one in there:
        of_class = times[np.asarray(classes) == one]
        expected = len(classes) / len(there) / len(of_class)
        assert np.abs(of_class - expected).max() < 1 + 1e-9


def test_an_image_with_two_labels_is_drawn_for_the_rarer_and_one_without_any_too() -> None:
    labels = np.array([[1, 0]] * 8 + [[1, 1]] * 2 + [[0, 0]] * 2 + [[NAN, NAN]] * 2)
    drawn = balanced_sample(labels, np.random.default_rng(0))
    times = np.bincount(drawn, minlength=len(labels))
    # Shares: 8 times 1/10 of the first label, 2 times 1/2 of the second, 4 times 1/4 of none.
    expected = np.array([0.1] * 8 + [0.5] * 2 + [0.25] * 4) / 2.8 * 14
    assert np.abs(times - expected).max() < 1
