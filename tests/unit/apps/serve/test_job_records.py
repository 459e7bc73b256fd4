import pytest
from pydantic import ValidationError

from glomerulab.apps.serve.job_records import (
    JobFolder,
    JobProgress,
    JobRecord,
    JobRequest,
    JobResult,
    SlideRequest,
)
from glomerulab.errors import ConfigError

REQUEST = JobRequest(slides=(SlideRequest(path="a.tif"),), regions="a.geojson")


@pytest.fixture
def folder(tmp_path):
    made = JobFolder(tmp_path / "0123456789abcdef")
    made.make()
    return made


def test_records_read_back_and_are_readable_by_their_owner_alone(folder):
    record = JobRecord(id="0" * 16, client="anna", request=REQUEST, created="2026")
    folder.write(record)
    folder.write_progress(JobProgress(stage="Cutting", done=3, total=None))
    folder.write_outcome(JobResult(n_images=4))
    assert folder.read() == record
    assert folder.read_progress().done == 3
    assert folder.read_outcome() == JobResult(n_images=4)
    assert [path.name for path in folder.path.rglob("*") if path.stat().st_mode & 0o077] == []
    assert folder.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 1}', "\x00"])
def test_an_unreadable_record_is_not_a_job(folder, content):
    (folder.path / "job.json").write_text(content)
    assert folder.read() is None
    assert folder.read_progress() is None
    assert folder.read_outcome() is None


def test_all_but_the_record_can_be_forgotten(folder):
    folder.write(JobRecord(id="0" * 16, client="anna", request=REQUEST, created="2026"))
    folder.write_outcome(JobResult())
    (folder.result / "cut").mkdir(parents=True)
    (folder.result / "cut" / "a.png").write_text("x")
    folder.delete_files()
    assert [path.name for path in folder.path.iterdir()] == ["job.json"]
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"slides": []},
        {"slides": [{"path": ""}]},
        {"slides": [{"path": "a", "mpp": 0}]},
        {"regions": ""},
        {"detect": "perhaps"},
        {"patient": "a\nb"},
        {"margin": -1},
        {"language": "de"},
        {"more": 1},
        {"slides": [{"path": "a", "mpp": float("nan")}]},
    ],
)
def test_an_invalid_request_is_rejected(wrong):
    with pytest.raises(ValidationError):
        JobRequest.model_validate({"slides": [{"path": "a"}], "regions": "r", **wrong})


def test_options_of_a_request_are_named_as_its_fields():
    request = REQUEST.model_copy(update={"classes": ("cgn",), "skip_classes": ("CGN",)})
    with pytest.raises(ConfigError, match="`classes` and with `skip_classes`"):
        request.region_options()
