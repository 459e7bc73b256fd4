"""Slides of a folder become jobs once each, and their results are put beside it."""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ComprehensiveSRStorage

from glomerulab.apps.serve.files import SlideFolder
from glomerulab.apps.serve.inbox import Inbox, SlideState, _folder_name
from glomerulab.apps.serve.job_process import JobTask
from glomerulab.apps.serve.job_records import JobFolder, JobRequest, JobResult, SlideRequest
from glomerulab.apps.serve.jobs import INBOX_CLIENT, Jobs
from glomerulab.apps.serve.settings import JobSettings, Limits
from glomerulab.errors import ConfigError, OutputError
from tests.support.dicom_slides import write_dicom_slide

LOOK_S = 0.1

# Work that other processes find by name: what a job does is tested with job_process.


def answering(task: JobTask) -> None:
    folder = JobFolder(task.folder)
    name = task.request.slides[0].path
    if "broken" in name:
        folder.write_outcome(JobResult(error=f"{name} is no slide"))
        return
    (folder.result / "reports").mkdir(parents=True)
    (folder.result / "reports" / "a.html").write_text(name)
    (folder.result / "result.zip").write_text("zip")
    folder.write_outcome(JobResult(n_images=1))


class Watched:
    """A server's jobs and inbox, which can be stopped and opened again."""

    def __init__(self, root: Path, *, jobs: str = "jobs", **limits) -> None:
        self.folder = root / "slides" / "inbox"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = JobSettings(root / jobs, root / "run", SlideFolder(root / "slides"))
        self.jobs = Jobs(settings, Limits(**limits), work=answering)
        self.inbox: Inbox | None = None

    def watch(self, language="en") -> "Watched":
        self.inbox = Inbox(self.folder, self.jobs, language=language, every_s=LOOK_S)
        return self

    def put(self, name: str, content: bytes = b"slide") -> None:
        (self.folder / name).write_bytes(content)

    def names(self) -> list[str]:
        return sorted(one.request.slides[0].path for one in self.jobs.of_client(INBOX_CLIENT))

    def table(self) -> list[dict[str, str]]:
        path = self.inbox.results / "slides.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))

    def ended(self) -> dict[str, str]:
        return {row["slide"]: row["state"] for row in self.table() if row["ended"]}

    def close(self) -> None:
        if self.inbox is not None:
            self.inbox.close()
        self.jobs.close()


@pytest.fixture
def watched(tmp_path: Path):
    opened = []

    def open_one(**how) -> Watched:
        opened.append(Watched(tmp_path, **how))
        return opened[-1]

    yield open_one
    for one in opened:
        if one.jobs.is_alive:
            one.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK_S / 4)


def test_each_slide_is_done_once_and_a_broken_one_does_not_stop_the_rest(watched) -> None:
    one = watched()
    for name in ("a.svs", "broken.tif", "c.ndpi"):
        one.put(name, name.encode())
    for name in ("notes.txt", "d.svs.part", ".hidden.svs"):
        one.put(name)
    one.watch()
    until(lambda: len(one.ended()) == 3)
    time.sleep(4 * LOOK_S)
    assert one.names() == ["inbox/a.svs", "inbox/broken.tif", "inbox/c.ndpi"]
    assert one.ended() == {
        "inbox/a.svs": "done",
        "inbox/broken.tif": "failed",
        "inbox/c.ndpi": "done",
    }
    rows = {row["slide"]: row for row in one.table()}
    assert "no slide" in rows["inbox/broken.tif"]["error"]
    place = one.inbox.results / rows["inbox/a.svs"]["folder"]
    assert (place / "report.html").read_text() == "inbox/a.svs"
    assert (place / "result.zip").is_file()
    assert json.loads((place / "slide.json").read_text())["state"] == "done"
    assert all(record.request.detect for record in one.jobs.of_client(INBOX_CLIENT))
    # Every client sees them, on the page too.
    assert len(one.jobs.of_client("anna")) == 3


def test_a_slide_that_still_grows_waits_until_it_is_whole(watched) -> None:
    one = watched().watch()
    for n in range(1, 6):
        one.put("a.svs", b"x" * n)
        time.sleep(0.6 * LOOK_S)
        assert one.names() == []
    one.put("b.svs.part")
    (one.folder / "b.svs.part").rename(one.folder / "b.svs")
    until(lambda: len(one.ended()) == 2)
    assert one.names() == ["inbox/a.svs", "inbox/b.svs"]


def test_a_restart_does_nothing_twice_and_completes_what_was_left(watched) -> None:
    one = watched()
    one.put("a.svs")
    one.watch()
    until(lambda: len(one.ended()) == 1)
    one.close()
    os.utime(one.folder / "a.svs")  # as a backup or a copy does
    # A server that was killed after the job was recorded, and before its results were in place.
    two = watched()
    request = JobRequest(slides=(SlideRequest(path="inbox/b.svs"),), detect=True)
    two.put("b.svs", b"another")
    two.jobs.add(
        request,
        INBOX_CLIENT,
        inbox_folder=_folder_name("b.svs", SlideState(len(b"another"), 0, None)),
    )
    two.watch()
    until(lambda: len(two.ended()) >= 2)
    time.sleep(4 * LOOK_S)
    assert two.ended() == {"inbox/a.svs": "done", "inbox/b.svs": "done"}
    assert two.names() == ["inbox/a.svs", "inbox/b.svs"]


def test_a_deleted_job_is_not_done_again_until_its_results_are_deleted_too(watched) -> None:
    one = watched()
    one.put("a.svs")
    one.watch()
    until(lambda: len(one.ended()) == 1)
    (record,) = one.jobs.of_client(INBOX_CLIENT)
    one.jobs.delete(record.id, "anna")
    time.sleep(4 * LOOK_S)
    assert one.names() == []
    for path in (place := one.inbox.results / record.inbox_folder).iterdir():
        path.unlink()
    place.rmdir()
    until(lambda: one.names() == ["inbox/a.svs"])


def test_another_slide_of_the_same_name_has_results_of_its_own(watched) -> None:
    one = watched()
    one.put("a.svs", b"one")
    one.watch()
    until(lambda: len(one.ended()) == 1)
    one.put("a.svs", b"a longer one")
    until(lambda: sum(row["state"] == "done" for row in one.table()) == 2)
    assert len({row["folder"] for row in one.table()}) == 2


def test_a_folder_of_dicom_files_and_the_files_of_mirax_are_one_slide(watched) -> None:
    one = watched()
    write_dicom_slide(one.folder / "series")
    one.put("m.mrxs")
    (one.folder / "m").mkdir()
    (one.folder / "m" / "Data0000.dat").write_bytes(b"y")
    one.watch()
    until(lambda: len(one.ended()) == 2)
    assert one.names() == ["inbox/m.mrxs", "inbox/series"]


def test_loose_dicom_files_are_one_slide_for_each_series(watched) -> None:
    one = watched()
    write_dicom_slide(one.folder, name="a", series="1.2.3")
    write_dicom_slide(one.folder, name="b", series="1.2.4")
    one.put("damaged.dcm", b"no DICOM")
    (one.folder / "b_9.dcm").write_bytes(b"")  # nothing has come yet
    one.watch()
    until(lambda: len(one.ended()) == 3)
    time.sleep(4 * LOOK_S)
    assert one.names() == ["inbox/a_1.dcm", "inbox/b_1.dcm", "inbox/damaged.dcm"]


def test_a_series_waits_for_the_file_that_still_grows(watched, tmp_path) -> None:
    one = watched().watch()
    write_dicom_slide(tmp_path / "export", name="a")
    for file in sorted((tmp_path / "export").iterdir()):
        content = file.read_bytes()
        for n in range(1, 4):
            (one.folder / file.name).write_bytes(content[: len(content) * n // 3])
            time.sleep(0.6 * LOOK_S)
            assert one.names() == []
    until(lambda: len(one.ended()) == 1)
    time.sleep(4 * LOOK_S)
    assert one.names() == ["inbox/a_1.dcm"]


def test_an_exported_folder_of_two_series_is_two_slides_and_other_objects_are_none(watched) -> None:
    one = watched()
    write_dicom_slide(one.folder / "study", name="a", series="1.2.3")
    write_dicom_slide(one.folder / "study", name="b", series="1.2.4")
    measured = pydicom.dcmread(one.folder / "study" / "a_1.dcm", stop_before_pixels=True)
    measured.SOPClassUID = measured.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    measured.SeriesInstanceUID = "1.2.5"
    measured.save_as(one.folder / "study" / "0.dcm")
    one.watch()
    until(lambda: len(one.ended()) == 2)
    time.sleep(4 * LOOK_S)
    assert one.names() == ["inbox/study/a_1.dcm", "inbox/study/b_1.dcm"]


def test_a_series_is_done_once_whatever_comes_beside_it(watched) -> None:
    one = watched()
    write_dicom_slide(one.folder / "study", name="m", series="1.2.3")
    one.watch()
    until(lambda: len(one.ended()) == 1)
    write_dicom_slide(one.folder / "study", name="a", series="1.2.4")
    (one.folder / "study" / "0.dcm").write_bytes(b"no DICOM")
    write_dicom_slide(one.folder, name="n", series="1.2.5")
    until(lambda: len(one.ended()) == 4)
    first = one.folder / "n_1.dcm"
    first.rename(first.with_name("b_1.dcm"))  # sorts earlier
    time.sleep(6 * LOOK_S)
    others = ["inbox/n_1.dcm", "inbox/study", "inbox/study/0.dcm", "inbox/study/a_1.dcm"]
    assert one.names() == others


def test_a_series_whose_last_files_come_late_is_done_again_as_a_whole(watched, tmp_path) -> None:
    one = watched()
    write_dicom_slide(tmp_path / "export", name="a", series="1.2.3")
    first, *rest = sorted((tmp_path / "export").iterdir())
    shutil.copy(first, one.folder)
    one.watch()
    until(lambda: len(one.ended()) == 1)
    for file in rest:
        shutil.copy(file, one.folder)
    until(lambda: one.names() == ["inbox/a_1.dcm", "inbox/a_1.dcm"])


def test_more_slides_than_jobs_may_wait_are_done_bit_by_bit(watched) -> None:
    one = watched(jobs_per_client=1)
    for n in range(3):
        one.put(f"{n}.svs", bytes([n + 1]))
    one.watch()
    until(lambda: len(one.ended()) == 3)


def test_what_goes_wrong_with_one_slide_stops_no_other(watched) -> None:
    one = watched()
    one.put("a\udce9.svs")  # no text
    one.put("b.svs")
    one.put("c.svs")
    one.watch()
    (one.inbox.results / _folder_name("b.svs", SlideState(len(b"slide"), 0, None))).write_text(
        "in its place"
    )
    until(lambda: "inbox/c.svs" in one.ended())
    assert one.inbox.is_alive


def test_results_of_another_inbox_are_not_put_here(watched) -> None:
    one = watched()
    request = JobRequest(slides=(SlideRequest(path="other/a.svs"),), detect=True)
    one.jobs.add(request, INBOX_CLIENT, inbox_folder="a.svs-0")
    one.put("b.svs")
    one.watch()
    until(lambda: "inbox/b.svs" in one.ended())
    assert list(one.ended()) == ["inbox/b.svs"]


def test_who_may_read_the_slides_may_read_the_results(watched) -> None:
    one = watched()
    one.folder.chmod(0o750)
    one.watch()
    assert one.inbox.results.stat().st_mode & 0o777 == 0o750


def test_two_servers_do_not_watch_one_inbox(watched) -> None:
    watched().watch()
    with pytest.raises(OutputError, match="inbox"):
        watched(jobs="others").watch()


def test_an_inbox_lies_in_the_slides_folder(watched, tmp_path) -> None:
    one = watched()
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path / "elsewhere", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="--inbox"):
            Inbox(folder, one.jobs)


def test_jobs_of_clients_come_before_those_of_the_inbox(watched) -> None:
    one = watched()
    request = JobRequest(slides=(SlideRequest(path="inbox/a.svs"),), detect=True)
    ids = [one.jobs.add(request, INBOX_CLIENT, inbox_folder=f"{n}").id for n in range(3)]
    own = one.jobs.add(request, "anna").id
    until(lambda: all(record.is_ended for record in one.jobs.of_client("anna")))
    started = {record.id: record.started for record in one.jobs.of_client("anna")}
    assert started[own] < started[ids[2]]
