"""Train a model and prepare its run for `glomerulab predict`."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from glomerulab.errors import GlomerulabError
from glomerulab.evaluation.run_tables import read_history
from glomerulab.inference.calibration import has_calibration
from glomerulab.inference.fit_calibration import fit_calibration
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.config import TrainConfig
from glomerulab.training.run import train

__all__ = ["is_main_process", "train_and_calibrate"]

logger = logging.getLogger(__name__)


def is_main_process() -> bool:
    """Return whether this is the first of the processes of a launcher, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def train_and_calibrate(
    config: TrainConfig,
    *,
    resume: bool = False,
    track: Track = silent,
    echo: Callable[[str], None] = logger.info,
    warn: Callable[[str], None] = logger.warning,
) -> Path:
    """Train a model, fit its calibration, and return the run folder.

    Parameters
    ----------
    resume : bool, default False
        Continue the run in ``config.out``, if there is one.
    echo : callable, optional
        Receives each line for the user.
    warn : callable, optional
        Receives the reason if the calibration fails: the training is still valid.

    See Also
    --------
    glomerulab.training.run.train : The errors of the training.
    """
    run = train(config, resume=resume, track=track, echo=echo)
    if not is_main_process():
        return run
    n_epochs = len(read_history(run / "history.csv"))
    if config.kind == "network" and n_epochs < config.epochs:
        echo(
            f"stopped after epoch {n_epochs} of {config.epochs}: no lower validation loss "
            f"in the last {config.patience}"
        )
    if not (resume and has_calibration(run)):
        try:
            fit_calibration(run, track=track)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is complete
            reason = str(error) if isinstance(error, GlomerulabError) else repr(error)
            warn(
                f"the training is complete, but its calibration failed: {reason}. Repeat that step "
                f"with `glomerulab gates {run}`; until then the run is not ready for `glomerulab "
                "predict`"
            )
    return run
