import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import ConfigError, GlomerulabError, OutputError, PredictionsError
from glomerulab.pipeline.cohort import _Cases, _cases, predict_cohort
from glomerulab.pipeline.cohort_folder import (
    CohortFolder,
    _claim,
    _new_claim,
    _remove_stale,
    _stale_claim,
)
from glomerulab.pipeline.cohort_merge import count_states, failed_cases, merge_cohort
from glomerulab.pipeline.cohort_report import report_cohort
from glomerulab.pipeline.predict import PredictSettings, predict
from glomerulab.pipeline.predict_inputs import Source
from glomerulab.runtime.cluster import open_workers
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.parallel import parse_part
from tests.support.cohorts import ONE_TIME, PATIENTS, content, write_slides
from tests.support.result_pages import write_references


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides of four patients, and one without a patient."""
    return write_slides(tmp_path_factory.mktemp("slides"), PATIENTS)


def settings(slides: Path, **further) -> PredictSettings:
    return PredictSettings(slides, margin=0.0, **further)


def run(slides: Path, trained: Path, out: Path, **further):
    workers = further.pop("n_workers", 1)
    return predict_cohort(
        slides / "slides.csv", trained, out, settings=settings(slides, n_workers=workers), **further
    )


@pytest.fixture(scope="module", autouse=True)
def same_conditions() -> Iterator[None]:
    """One time for all cohorts, and one thread for all processes, so that bytes can be compared."""
    patch = pytest.MonkeyPatch()
    for name, value in ONE_TIME.items():
        patch.setenv(name, value)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)
    patch.undo()


@pytest.fixture(scope="module")
def whole(slides: Path, trained: Path, tmp_path_factory) -> Path:
    """The cohort of one undisturbed run; not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run(slides, trained, out)
    assert (done.n_done, done.failed) == (5, ())
    merge_cohort(out)
    return out


def same(out: Path, whole: Path) -> bool:
    merge_cohort(out)
    return content(out) == content(whole)


def test_each_patient_is_what_predict_makes_of_it(whole, slides, trained, tmp_path) -> None:
    predict(slides / "slides.csv", trained, tmp_path / "single", settings=settings(slides))
    single = read_case_folder(tmp_path / "single").patients()
    cases = CohortFolder(whole).cases()
    assert list(cases["case"]) == ["p1", "p2", "p3", "s4", "病人 5"]
    for case, name in zip(cases["case"], cases["name"], strict=True):
        found = read_case_folder(CohortFolder(whole).case_folder(name)).patients()
        assert list(found) == [case]
        for mine, theirs in zip(found[case], single[case], strict=True):
            # a batch of another size rounds differently
            assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)


def test_what_a_killed_process_left_half_written_is_removed(
    whole, slides, trained, tmp_path
) -> None:
    out, ended = tmp_path / "out", subprocess.Popen(["true"])
    ended.wait()
    with atomic_write(tmp_path / "predictions.csv") as temporary:
        name = temporary.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
        temporary.touch()
    for folder in (out / "status", out / "cases" / "p1"):
        folder.mkdir(parents=True)
        (folder / name).write_text("half")
    run(slides, trained, out)
    assert same(out, whole)
    assert not list(out.rglob("*.partial-*"))


def test_a_mistake_in_the_command_leaves_no_folder(slides, trained, tmp_path) -> None:
    with pytest.raises(GlomerulabError):
        predict_cohort(slides / "none.csv", trained, tmp_path / "out", settings=settings(slides))
    with pytest.raises(GlomerulabError):
        run(slides, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_any_division_into_parts_gives_the_bytes_of_one_run(
    whole, slides, trained, tmp_path
) -> None:
    for number in (3, 1, 2):
        run(slides, trained, tmp_path / "out", part=(number, 3))
    assert same(tmp_path / "out", whole)


def test_parts_on_other_disks_are_merged(whole, slides, trained, tmp_path) -> None:
    for number in (1, 2):
        run(slides, trained, tmp_path / str(number), part=(number, 2))
    merge_cohort(tmp_path / "1", [tmp_path / "2"])
    assert same(tmp_path / "1", whole)
    assert count_states(CohortFolder(tmp_path / "2"))["done"] == 0


def test_processes_and_cluster_give_the_bytes_of_one_run(whole, slides, trained, tmp_path) -> None:
    run(slides, trained, tmp_path / "pool", n_workers=2)
    assert same(tmp_path / "pool", whole)
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "local"\njobs = 2\nmemory = "2GB"\n')
    with open_workers(cluster=file) as workers:
        run(slides, trained, tmp_path / "dask", workers=workers)
    assert same(tmp_path / "dask", whole)


def test_the_calls_are_one_data_set_with_one_schema(whole: Path) -> None:
    calls = pyarrow.dataset.dataset(whole / "calls", partitioning="hive").to_table().to_pandas()
    assert len(calls) == 2 * len(PATIENTS)
    assert list(calls["case"].unique()) == list(CohortFolder(whole).cases()["name"])
    of_case = pd.read_csv(whole / "cases" / "p1" / "predictions.csv")
    np.testing.assert_array_equal(
        calls.loc[calls["case"] == "p1", "probability_cgn"], of_case["probability_cgn"]
    )
    assert pd.read_parquet(whole / "calls")["image_id"].is_unique


def test_a_second_run_does_nothing_again(whole, slides, trained, tmp_path) -> None:
    run(slides, trained, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cases").rglob("*.csv")}
    done = run(slides, trained, tmp_path / "out")
    assert (done.n_before, done.n_done) == (5, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_case_that_fails_does_not_stop_the_others(slides, trained, tmp_path) -> None:
    table = pd.read_csv(slides / "slides.csv")
    table["slide_path"] = [str(slides / name) for name in table["slide_path"]]
    (tmp_path / "broken.tif").write_bytes(b"broken")
    table.loc[2, "slide_path"] = str(tmp_path / "broken.tif")
    table.to_csv(tmp_path / "slides.csv", index=False)
    out = tmp_path / "out"
    arguments = (tmp_path / "slides.csv", trained, out)
    done = predict_cohort(*arguments, settings=settings(slides))
    assert (done.n_done, done.failed) == (4, ("p2",))
    facts = merge_cohort(out).facts
    assert (facts.n_done, facts.n_failed, facts.n_open) == (4, 1, 0)
    assert "broken.tif" in (out / "cohort.html").read_text()
    # it stays failed until somebody asks for it again
    assert predict_cohort(*arguments, settings=settings(slides)).n_before == 5
    CohortFolder(out).retry([one.name for one in failed_cases(CohortFolder(out))])
    (tmp_path / "broken.tif").write_bytes((slides / "s2.tif").read_bytes())
    assert predict_cohort(*arguments, settings=settings(slides)).n_done == 1


def test_other_settings_and_other_slides_are_refused(slides, trained, tmp_path) -> None:
    out = tmp_path / "out"
    run(slides, trained, out, part=(1, 5))
    with pytest.raises(OutputError, match="margin"):
        predict_cohort(
            slides / "slides.csv", trained, out, settings=PredictSettings(slides, margin=0.2)
        )
    text = (slides / "slides.csv").read_text()
    other = slides / "other.csv"
    other.write_text(text.replace("s1.tif,s1,p1", "s1.tif,s1,p9"))
    with pytest.raises(OutputError, match="p1"):
        predict_cohort(other, trained, out, settings=settings(slides))
    # what was not begun may change
    other.write_text(text.replace("s3.tif,s3,p3", "s3.tif,s3,p9"))
    assert predict_cohort(other, trained, out, settings=settings(slides)).n_done == 4


def test_a_case_in_the_work_of_a_living_process_is_left_to_it(slides, trained, tmp_path) -> None:
    out = tmp_path / "out"
    run(slides, trained, out, part=(1, 5))
    with CohortFolder(out).claimed("p2") as is_mine:
        assert is_mine
        with CohortFolder(out).claimed("p2") as again:
            assert not again
        done = run(slides, trained, out)
    assert (done.n_done, done.n_elsewhere) == (3, 1)
    assert run(slides, trained, out).n_done == 1


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from glomerulab.pipeline.cohort_folder import CohortFolder\n"
        "with CohortFolder(Path(sys.argv[1])).claimed('p1'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "status" / "p1.claim").exists()
    with CohortFolder(tmp_path).claimed("p1") as is_mine:
        assert is_mine
    assert list((tmp_path / "status").iterdir()) == []


def test_a_claim_from_elsewhere_is_taken_over_when_nobody_renews_it(tmp_path: Path) -> None:
    claim = tmp_path / "status" / "p1.claim"
    claim.parent.mkdir()
    claim.write_text("another-host pid:[1]\n1\n")
    with CohortFolder(tmp_path).claimed("p1") as is_mine:
        assert not is_mine
    os.utime(claim, (claim.stat().st_mtime - 400,) * 2)
    with CohortFolder(tmp_path).claimed("p1") as is_mine:
        assert is_mine


@pytest.mark.parametrize("content", ["", "another-host pid:[1]\n1\n", "{this}"])
def test_an_old_claim_is_taken_over_whatever_it_holds(content: str, tmp_path: Path) -> None:
    # empty: the disk was full; this process: another one has the number of the killed one now
    claim = tmp_path / "status" / "p1.claim"
    claim.parent.mkdir()
    claim.write_text(content.format(this=_new_claim()))
    with CohortFolder(tmp_path).claimed("p1") as is_mine:
        assert not is_mine
    os.utime(claim, (claim.stat().st_mtime - 400,) * 2)
    with CohortFolder(tmp_path).claimed("p1") as is_mine:
        assert is_mine
    assert list(claim.parent.iterdir()) == []


def test_a_claim_that_was_taken_over_in_between_stays(tmp_path: Path) -> None:
    path = tmp_path / "p1.claim"
    path.write_text("another-host\n1\n")
    os.utime(path, (path.stat().st_mtime - 400,) * 2)
    stale = _stale_claim(path)
    assert stale is not None
    _remove_stale(path, stale)
    quicker = _new_claim()
    assert _claim(path, quicker)
    _remove_stale(path, stale)  # of a slower process that saw the same stale claim
    assert path.read_text() == quicker
    assert not _claim(path, _new_claim())


def test_who_lost_a_claim_does_not_release_that_of_another(tmp_path: Path) -> None:
    claim = tmp_path / "status" / "p1.claim"
    claim.parent.mkdir()
    with CohortFolder(tmp_path).claimed("p1"):
        claim.write_text(_new_claim())
    assert claim.exists()


def test_patients_with_names_that_a_disk_may_take_for_one_have_folders_of_their_own(
    trained, tmp_path
) -> None:
    patients = ["P7", "p7", "007", "7", "../x", "x" * 300, "a b", "a_b", "con.claim"]
    slides = write_slides(tmp_path / "slides", patients)
    assert run(slides, trained, tmp_path / "out").n_done == len(patients)
    assert merge_cohort(tmp_path / "out").facts.n_images == 2 * len(patients)
    names = CohortFolder(tmp_path / "out").cases()["name"]
    assert len({name.casefold() for name in names}) == len(patients)
    assert sorted(path.name for path in (tmp_path / "out" / "cases").iterdir()) == sorted(names)


def test_a_table_without_a_case_that_is_done_is_refused(slides, trained, tmp_path) -> None:
    run(slides, trained, tmp_path / "out", part=(1, 5))
    text = (slides / "slides.csv").read_text()
    lines = [line for line in text.splitlines() if ",p1," not in line]
    (slides / "without.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(OutputError, match="p1"):
        predict_cohort(slides / "without.csv", trained, tmp_path / "out", settings=settings(slides))
    assert "p1" in set(CohortFolder(tmp_path / "out").cases()["case"])


def test_a_cohort_and_predictions_do_not_share_a_folder(whole, slides, trained, tmp_path) -> None:
    arguments = (slides / "slides.csv", trained)
    with pytest.raises(OutputError, match="cohort"):
        predict(*arguments, whole, settings=settings(slides))
    with pytest.raises(OutputError, match="cohort"):
        predict_cohort(*arguments, whole / "cases" / "p1", settings=settings(slides))
    with pytest.raises(PredictionsError, match="cases/"):
        read_case_folder(whole)


def _parquet(**columns: list[object]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table(columns), stream)
    return stream.getvalue()


DAMAGED = {
    "cases.parquet": [
        None,
        b"",
        b"PAR1",
        _parquet(case=["p1"], name=[["p1"]], source=["x"]),
        _parquet(case=[{"a": 1}], name=["p1"], source=["x"]),
        _parquet(case=["p1"], name=[1], source=["x"]),
        _parquet(case=["p1"], name=["p1"]),
    ],
    "cohort.json": [None, b"[]", b'{"format": 1}', b"\xff"],
    "status/p1.done.json": [b"", b"[]", b"{}", b'{"case": "p1", "facts": null}', b"\xff"],
    "status/p1.failed.json": [b"", b"{}"],
    "cases/p1/case.json": [None, b"{}"],
    "cases/p1/predictions.csv": [None, b"", b"a,b\n1,2\n", b"\xff"],
    "cases/p1/failures.csv": [b"\xff"],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name, contents in DAMAGED.items() for content in contents],
)
def test_a_damaged_file_of_a_cohort_is_named(whole, tmp_path, name, content) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    calls = (out / "calls" / "shard=00000" / "calls.parquet").read_bytes()
    status = out / "status" / "p1.done.json"
    if "failures" in name:
        status.write_text(status.read_text().replace('"failures":0', '"failures":1'))
    if "failed" in name:
        status.unlink()
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(content)
    with pytest.raises(GlomerulabError) as caught:
        merge_cohort(out)
    assert Path(name).name in str(caught.value) or "cohort.json" in name
    assert (out / "calls" / "shard=00000" / "calls.parquet").read_bytes() == calls


def test_the_calls_are_the_same_whoever_writes_them(whole, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("glomerulab.pipeline.cohort_merge.CASES_PER_SHARD", 2)
    for n_workers in (1, 2):
        shutil.copytree(whole, tmp_path / str(n_workers))
        merge_cohort(tmp_path / str(n_workers), n_workers=n_workers)
    assert len(list((tmp_path / "2" / "calls").iterdir())) == 3
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_cohort_without_a_case_that_is_done_is_left_as_it_is(slides, trained, tmp_path) -> None:
    out = tmp_path / "out"
    run(slides, trained, out, part=(1, 5))
    (out / "status" / "p1.done.json").rename(out / "status" / "p1.failed.json")
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match="1 of 5 failed"):
        merge_cohort(out)
    assert sorted(out.rglob("*")) == before


@given(st.lists(st.sampled_from(["p1", "p2", "P1", "p/3", None]), max_size=12))
def test_a_case_is_made_of_the_rows_of_its_patient_in_their_order(patients) -> None:
    entries = [SlideEntry(Path(f"{n}.tif"), f"s{n}", patient) for n, patient in enumerate(patients)]
    source = Source("slides.csv", tuple(entries), len(entries))
    table, rows = _cases(source)
    cases = _Cases(source, table, rows)
    found = {one.case: list(one.source.slides) for one in cases}
    expected: dict[str, list[SlideEntry]] = {}
    for entry in entries:
        expected.setdefault(entry.patient_id or entry.slide_id, []).append(entry)
    assert list(found.items()) == list(expected.items())
    assert table["name"].str.casefold().is_unique


def test_a_case_of_a_manifest_is_known_by_its_own_rows(trained: Path) -> None:
    manifest = read_manifest(trained / "manifest.csv")
    before, _ = _cases(Source("x", manifest=manifest))
    table = manifest.table.copy()
    table.loc[0, "stain"] = "HE"
    after, rows = _cases(Source("x", manifest=manifest.with_table(table)))
    assert sorted(np.concatenate(rows)) == list(range(len(table)))
    is_other = before["source"] != after["source"]
    assert after["case"][is_other].tolist() == [table["patient_id"][0]]


def test_a_folder_that_cannot_be_written_to_is_an_output_error(whole, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / ".calls.partial").write_text("in the way")
    with pytest.raises(OutputError):
        merge_cohort(out)
    (out / "status" / "p1.failed.json").mkdir()
    with pytest.raises(OutputError):
        CohortFolder(out).retry(["p1"])
    (out / "status" / "p1.attempts").mkdir()
    with pytest.raises(OutputError), CohortFolder(out).attempt("p1"):
        pytest.fail("an attempt that is not counted must not begin")


def test_a_case_that_kills_its_process_each_time_fails(slides, trained, tmp_path) -> None:
    out = tmp_path / "out"
    run(slides, trained, out, part=(5, 5))
    (out / "status" / "p3.attempts").write_bytes(b"...")  # as three killed processes leave it
    done = run(slides, trained, out)
    assert (done.n_done, done.failed) == (3, ("p3",))
    (status,) = failed_cases(CohortFolder(out))
    assert "killed 3 times" in status.reason


def test_a_manifest_of_crops_is_a_cohort_as_well(trained: Path, tmp_path: Path) -> None:
    table = pd.read_csv(trained / "manifest.csv")
    done = predict_cohort(trained / "manifest.csv", trained, tmp_path / "out")
    assert done.n_done == table["patient_id"].nunique()
    merge_cohort(tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "calls")) == len(table)


def test_the_reports_of_a_cohort_lie_with_its_cases(slides, trained, tmp_path) -> None:
    run(slides, trained, tmp_path / "out")
    done = report_cohort(tmp_path / "out", formats=["html", "csv"])
    assert (done.n_cases, done.failures) == (5, ())
    reports = CohortFolder(tmp_path / "out").case_folder("p1") / "reports"
    assert (reports / "p1.html").is_file()
    # a report changes nothing that a later run or report reads
    assert run(slides, trained, tmp_path / "out").n_before == 5
    (CohortFolder(tmp_path / "out").case_folder("p2") / "predictions.csv").write_text("broken")
    again = report_cohort(tmp_path / "out", formats=["html"])
    assert [case for case, _ in again.failures] == ["p2"]


def test_reference_pictures_are_checked_with_a_case_that_can_be_read(slides, trained, tmp_path):
    run(slides, trained, tmp_path / "out")
    table = CohortFolder(tmp_path / "out").case_folder("p1") / "predictions.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[1:]]))
    references = write_references(tmp_path / "references", "cgn", side=64)
    how = {"formats": ["html"], "references": references}
    again = report_cohort(tmp_path / "out", **how)
    assert [case for case, _ in again.failures] == ["p1"]
    assert report_cohort(tmp_path / "out", accept_edits=True, **how).failures == ()


@pytest.mark.parametrize("text", ["", "7", "0/3", "4/3", "a/b", "1/-2", "1/0"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="7/100"):
        parse_part(text)


def test_a_folder_without_a_cohort_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        CohortFolder(tmp_path).cases()
    assert str(tmp_path) in str(caught.value)


def test_nothing_of_a_cohort_can_be_read_by_others(whole: Path) -> None:
    assert [path.name for path in whole.rglob("*") if path.stat().st_mode & 0o077] == []


def test_status_files_are_plain_json(whole: Path) -> None:
    record = json.loads((whole / "status" / "p1.done.json").read_text())
    assert record["facts"]["slides"] == 2
    assert record["facts"]["images"] == 4


def test_a_cohort_is_planned_without_loading_the_model(trained: Path) -> None:
    code = (
        "import sys\n"
        "from glomerulab.inference.model import load_model\n"
        "from glomerulab.pipeline.cohort import read_identity\n"
        "light = read_identity(sys.argv[1])\n"
        "print([name for name in ('torch', 'sklearn', 'matplotlib') if name in sys.modules])\n"
        "model = load_model(sys.argv[1])\n"
        "print(light == (model.card, model.fingerprint))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "True"]
