import json
from pathlib import Path

import torch

from glomerulab.training.environment import has_bfloat16, write_environment


def test_what_is_needed_to_repeat_a_run_is_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image_id,image_path\n")
    write_environment(
        tmp_path / "environment.json", seed=7, manifest_path=tmp_path / "manifest.csv", device="cpu"
    )
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert (facts["seed"], facts["device"], facts["research_use_only"]) == (7, "cpu", True)
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(facts["manifest_sha256"]) == 64


def test_bfloat16_is_used_only_where_the_processor_has_it() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    assert has_bfloat16(torch.device("cpu")) == ("avx512_bf16" in flags)
    assert not has_bfloat16(torch.device("meta"))
