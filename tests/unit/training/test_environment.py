import json
from pathlib import Path

import torch

from glomerulab.training.environment import write_environment


def test_what_is_needed_to_repeat_a_run_is_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image_id,image_path\n")
    write_environment(
        tmp_path / "environment.json", seed=7, manifest_path=tmp_path / "manifest.csv", device="cpu"
    )
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert (facts["seed"], facts["device"], facts["research_use_only"]) == (7, "cpu", True)
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(facts["manifest_sha256"]) == 64
