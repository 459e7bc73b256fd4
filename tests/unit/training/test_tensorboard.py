import sys
from pathlib import Path

import pytest

from glomerulab.errors import ConfigError
from glomerulab.training.tensorboard import board


def test_tensorboard_reads_what_was_written_and_not_what_a_killed_run_wrote(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with board(tmp_path, n_done=0) as tell:
        for epoch in (1, 2, 3):
            tell({"epoch": epoch, "train_loss": 1.0 / epoch, "validation_loss": None})
    with board(tmp_path, n_done=1) as tell:
        tell({"epoch": 2, "train_loss": 0.25, "validation_loss": None})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["train_loss"]
    told = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert told == [(1, 1.0), (2, 0.25)]


def test_without_tensorboard_the_way_to_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"install glomerulab\[tensorboard\]"),
        board(tmp_path, n_done=0),
    ):
        pass
