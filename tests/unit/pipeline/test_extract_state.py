import json

import pytest

from glomerulab.errors import OutputError
from glomerulab.pipeline.extract_state import (
    STATE_FILE,
    continue_or_refuse,
    exclusive,
    forget_run,
)

SETTINGS = {"mpp": 0.5, "labels": ["a", "b"]}


def record(out, settings=SETTINGS, **fingerprints):
    continue_or_refuse(out, settings=settings, fingerprints=fingerprints)


def test_slides_of_several_runs_are_remembered(tmp_path):
    record(tmp_path, a="1")
    record(tmp_path, b="2")
    state = json.loads((tmp_path / STATE_FILE).read_text())
    assert state["fingerprints"] == {"a": "1", "b": "2"}


def test_other_settings_or_regions_are_refused(tmp_path):
    record(tmp_path, a="1")
    with pytest.raises(OutputError, match=r"mpp 0\.5 then, 1\.0 now.*--overwrite"):
        record(tmp_path, {**SETTINGS, "mpp": 1.0}, a="1")
    with pytest.raises(OutputError, match="slide 'a' or its regions changed"):
        record(tmp_path, a="2")


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}', '{"version": 1}'])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / STATE_FILE).write_text(content)
    with pytest.raises(OutputError, match="choose another --out"):
        record(tmp_path, a="1")


def test_two_runs_do_not_share_a_folder(tmp_path):
    with (
        exclusive(tmp_path),
        pytest.raises(OutputError, match="another extract is at work"),
        exclusive(tmp_path),
    ):
        pass
    with exclusive(tmp_path):
        pass


def test_forgetting_deletes_only_what_extract_wrote(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    forget_run(tmp_path)
    assert (tmp_path / "crops").is_dir()
    (tmp_path / "crops").rmdir()
    record(tmp_path, a="1")
    (tmp_path / "crops").mkdir()
    forget_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
