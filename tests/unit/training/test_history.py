import sys
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.errors import ConfigError, TrainingError
from glomerulab.training.config import TrainConfig
from glomerulab.training.history import (
    EpochRow,
    check_finite,
    is_best,
    is_stale,
    progress_text,
    tensorboard_writer,
    write_history,
)

CONFIG = TrainConfig.model_validate({"manifest": "m", "out": "o", "epochs": 5})


def _rows(*losses: float | None) -> list[EpochRow]:
    return [
        {
            "epoch": n,
            "train_loss": 0.5,
            "validation_loss": loss,
            "validation_accuracy": None if loss is None else 0.75,
            "images_per_second": 12.34,
        }
        for n, loss in enumerate(losses, start=1)
    ]


def test_the_first_of_equal_epochs_is_the_best() -> None:
    rows = _rows(0.5, 0.4, 0.4, 0.6, 0.3)
    best = [is_best(row, rows[:at]) for at, row in enumerate(rows)]
    assert best == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("losses", "patience", "stale"),
    [
        ((0.5, 0.6, 0.7), 2, True),
        ((0.5, 0.6), 2, False),
        ((0.5, 0.6, 0.4), 2, False),
        ((0.5, 0.4, 0.4, 0.4), 2, True),
        ((0.5, 0.6, 0.7), None, False),
        ((), 1, False),
        ((None, None, None), 1, False),
    ],
)
def test_patience_counts_epochs_since_the_best(
    losses: tuple[float, ...], patience: int | None, stale: bool
) -> None:
    assert is_stale(_rows(*losses), patience) == stale


def test_the_progress_text_has_epoch_loss_score_and_speed() -> None:
    assert progress_text([], CONFIG) == "Epoch 1/5"
    assert progress_text(_rows(0.6123), CONFIG) == (
        "Epoch 2/5 (loss 0.500; validation loss 0.612, accuracy 0.750; 12.3 img/s)"
    )
    assert progress_text(_rows(None), CONFIG) == "Epoch 2/5 (loss 0.500; 12.3 img/s)"


def test_a_loss_that_is_not_finite_is_refused() -> None:
    check_finite(_rows(0.5)[0])
    with pytest.raises(TrainingError, match="validation_loss is nan in epoch 1"):
        check_finite(_rows(float("nan"))[0])


def test_the_history_is_written_as_a_table(tmp_path: Path) -> None:
    write_history(_rows(0.5, None), tmp_path / "history.csv")
    table = pd.read_csv(tmp_path / "history.csv")
    assert table["epoch"].tolist() == [1, 2]
    assert table["validation_loss"].isna().tolist() == [False, True]


def test_tensorboard_reads_what_was_written_and_not_what_a_killed_run_wrote(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard_writer(tmp_path, n_done=0) as write:
        for epoch in (1, 2, 3):
            write({"epoch": epoch, "train_loss": 1.0 / epoch, "validation_loss": None})
    with tensorboard_writer(tmp_path, n_done=1) as write:
        write({"epoch": 2, "train_loss": 0.25, "validation_loss": None})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["train_loss"]
    values = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert values == [(1, 1.0), (2, 0.25)]


def test_without_tensorboard_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"install glomerulab\[tensorboard\]"),
        tensorboard_writer(tmp_path, n_done=0),
    ):
        pass
