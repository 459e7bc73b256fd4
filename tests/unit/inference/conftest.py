import shutil
from pathlib import Path

import pytest

from glomerulab.inference.fit_gates import fit_gates
from tests.model_runs import train_small_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its gates; not to be changed."""
    run = train_small_run(tmp_path_factory.mktemp("trained"))
    fit_gates(run)
    return run


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    """A copy with its images, to be damaged."""
    shutil.copytree(trained.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"
