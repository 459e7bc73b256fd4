from pathlib import Path

import optuna
import pytest
from PIL import Image

from glomerulab.training.search_result import trials_table, write_plot, write_trials


@pytest.fixture
def study() -> optuna.Study:
    """Five trials of two settings: three complete, one pruned, one failed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        trial.suggest_categorical("name", ["adam", "sgd"])
        trial.report(rate, 1)
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 4:
            trial.set_user_attr("reason", "out of memory")
            raise ValueError
        return rate

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=5, catch=ValueError)
    return study


def test_every_trial_is_a_row_with_its_settings_and_its_end(
    study: optuna.Study, tmp_path: Path
) -> None:
    table = write_trials(study, tmp_path / "trials.csv")
    assert table["state"].tolist() == ["complete"] * 3 + ["pruned", "fail"]
    assert table["reason"].isna().tolist() == [True] * 4 + [False]
    assert table["value"][:3].tolist() == table["rate"][:3].tolist()
    assert set(table["name"]) <= {"adam", "sgd"}
    assert (tmp_path / "trials.csv").read_text().count("\n") == 6
    assert trials_table(study).equals(table)


def test_the_trials_are_drawn(study: optuna.Study, tmp_path: Path) -> None:
    write_plot(study, tmp_path, metric="validation_loss", is_synthetic=True)
    assert "judged on synthetic images" in (tmp_path / "search.svg").read_text(encoding="utf-8")
    with Image.open(tmp_path / "search.png") as image:
        assert image.size[0] > 1000
        assert len(image.convert("RGB").getcolors(image.size[0] * image.size[1])) > 10
