from pathlib import Path

import pandas as pd
import pytest

from glomerulab.errors import TrainingError
from glomerulab.training.config import TrainConfig
from glomerulab.training.history import (
    EpochRow,
    is_best,
    is_stale,
    progress_text,
    refuse_not_finite,
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


def test_progress_says_epoch_loss_score_and_speed() -> None:
    assert progress_text([], CONFIG) == "Epoch 1/5"
    assert progress_text(_rows(0.6123), CONFIG) == (
        "Epoch 2/5 (loss 0.500; validation loss 0.612, accuracy 0.750; 12.3 img/s)"
    )
    assert progress_text(_rows(None), CONFIG) == "Epoch 2/5 (loss 0.500; 12.3 img/s)"


def test_a_loss_that_is_no_number_is_refused() -> None:
    refuse_not_finite(_rows(0.5)[0])
    with pytest.raises(TrainingError, match="validation_loss is nan in epoch 1"):
        refuse_not_finite(_rows(float("nan"))[0])


def test_the_history_is_written_as_a_table(tmp_path: Path) -> None:
    write_history(_rows(0.5, None), tmp_path / "history.csv")
    table = pd.read_csv(tmp_path / "history.csv")
    assert table["epoch"].tolist() == [1, 2]
    assert table["validation_loss"].isna().tolist() == [False, True]
