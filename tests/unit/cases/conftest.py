from pathlib import Path

import pytest

from glomerulab.cases.case_folder import CaseFolder
from tests.support.cases import case_folder


@pytest.fixture
def folder(tmp_path: Path) -> CaseFolder:
    return case_folder(tmp_path / "predictions")
