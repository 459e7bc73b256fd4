import numpy as np
import pytest

from glomerulab.errors import TrainingError
from glomerulab.training.batch_plan import (
    deal_epoch,
    own_share,
    refuse_empty_shares,
    steps_per_epoch,
)
from glomerulab.training.config import TrainConfig

LABELS = np.eye(2)[[0] * 18 + [1] * 2]


def _config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"manifest": "m", "out": "o", "batch_size": 8} | changes)


def test_every_image_is_dealt_once_and_no_step_is_tiny() -> None:
    steps = deal_epoch(LABELS, _config(accumulate=2), 3)
    assert len(steps) == steps_per_epoch(20, _config()) == 3
    assert [[len(part) for part in step] for step in steps] == [[4, 3], [4, 3], [3, 3]]
    keys = [key for step in steps for part in step for key in part]
    assert sorted(key.place for key in keys) == list(range(20))
    assert {key.epoch for key in keys} == {3}


def test_epochs_are_dealt_differently_and_each_alike_again() -> None:
    assert deal_epoch(LABELS, _config(), 0) == deal_epoch(LABELS, _config(), 0)
    assert deal_epoch(LABELS, _config(), 0) != deal_epoch(LABELS, _config(), 1)
    assert deal_epoch(LABELS, _config(), 0) != deal_epoch(LABELS, _config(seed=1), 0)


def test_sampling_shows_the_rare_class_as_often_as_the_frequent_one() -> None:
    steps = deal_epoch(LABELS, _config(balance="sampling"), 0)
    places = [key.place for step in steps for part in step for key in part]
    assert len(places) == 20
    assert sum(place >= 18 for place in places) == 10


def test_the_shares_of_processes_are_the_whole() -> None:
    parts = [part for step in deal_epoch(LABELS, _config(), 0) for part in step]
    shares = [own_share(parts, process=p, n_processes=3) for p in range(3)]
    for part, *of_each in zip(parts, *shares, strict=True):
        assert sorted(part) == sorted(key for share in of_each for key in share)


def test_a_process_without_an_image_is_refused() -> None:
    refuse_empty_shares(17, _config(batch_size=16), n_processes=8)
    with pytest.raises(TrainingError, match=r"17 training images in batches of 16, .* raise batch"):
        refuse_empty_shares(17, _config(batch_size=16), n_processes=9)
