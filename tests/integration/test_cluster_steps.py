"""The commands that take a cluster, on workers with folders of their own: one of them is killed,
and an image or slide kills each worker that opens it. What comes out is what one process gives."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from tests.support.dask_processes import (
    COMMAND,
    ENVIRONMENT,
    free_port,
    killer,
    scheduler,
    wait_until,
    worker,
)
from tests.support.killed_commands import write_inputs
from tests.support.segmenters import write_segmenter

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

KILLS = "kills"
CROPS = "whole/extract/manifest.csv"
STEPS = {
    "extract": ("extract", "slides.csv", "--regions", "regions", "--margin", "0"),
    "detect": ("extract", "slides.csv", "--detect", "segmenter"),
    "segment": ("segment", "slides.csv", "--model", "segmenter", "--format", "geojson,csv"),
    "normalize": ("normalize", CROPS, "--target-pas", "pas.png", "--trust-stains"),
    "embed": ("embed", CROPS, "--model", "trained/run"),
    "explain": ("explain", "trained/run", CROPS, "--sanity", "0"),
    "predict": ("predict", "slides.csv", "--model", "trained/run", "--regions", "regions"),
}
NOT_COMPARED = {"normalize.jsonl", "answers.jsonl", "cohort.json", "cases.parquet"}
"""They hold times of files and runs."""


def glomerulab(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, cwd=home, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def content(folder: Path) -> dict[str, bytes]:
    """Return the results: no settings, no records of times, no stored parts."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if name.name not in NOT_COMPARED and name.parts[0] not in {"parts", "status"}
    }


@pytest.fixture(scope="module")
def home(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, crops and a model, and what one process makes of them."""
    home = tmp_path_factory.mktemp("home")
    write_inputs(home, trained)
    write_segmenter(home / "segmenter")
    rows = [f"slides/s{n}.tif,s{n},p{n},PAS" for n in (1, 2)]
    (home / "slides.csv").write_text("slide_path,slide_id,patient_id,stain\n" + "\n".join(rows))
    for name, arguments in STEPS.items():
        further = ("--cohort",) if name == "predict" else ()
        done = glomerulab(home, *arguments, *further, "--out", f"whole/{name}")
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def address(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers that a file called kills* kills, and which start again."""
    port = free_port()
    environment = killer(tmp_path_factory.mktemp("killer") / "hook")
    with ExitStack() as stack:
        stack.enter_context(scheduler(port))
        for _ in range(2):
            folder = tmp_path_factory.mktemp("node")
            options = ("--local-directory", str(folder), "--memory-limit", "2GB")
            stack.enter_context(worker(port, *options, folder=folder, environment=environment))
        yield f"tcp://127.0.0.1:{port}"


@pytest.mark.parametrize("name", STEPS)
def test_workers_in_other_folders_give_the_bytes_of_one_process(name, home, address) -> None:
    done = glomerulab(home, *STEPS[name], "--out", f"whole/{name}-there", "--scheduler", address)
    assert done.returncode == 0, done.stderr
    there, whole = content(home / "whole" / f"{name}-there"), content(home / "whole" / name)
    assert there.keys() == whole.keys()
    assert [key for key in whole if there[key] != whole[key]] == []


def test_a_manifest_is_checked_as_by_one_process(home, address) -> None:
    one = glomerulab(home, "manifest", "check", "crops/manifest.csv")
    two = glomerulab(home, "manifest", "check", "crops/manifest.csv", "--scheduler", address)
    assert (one.returncode, one.stdout) == (two.returncode, two.stdout)
    assert one.returncode == 0


def test_the_reports_of_a_cohort_are_those_of_one_process(home, address) -> None:
    for name in ("one", "two"):
        shutil.copytree(home / "whole" / "predict", home / name)
    options = ("--format", "csv,geojson,fhir")
    assert glomerulab(home, "report", "one", *options).returncode == 0
    done = glomerulab(home, "report", "two", *options, "--scheduler", address)
    assert done.returncode == 0, done.stderr
    assert content(home / "two") == content(home / "one")


def begin(home: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=home,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def n_results(folder: Path) -> int:
    """Count the files that items wrote, in folders of their own."""
    return sum(1 for path in folder.glob("*/**/*") if path.is_file() and path.suffix != ".lock")


def test_commands_go_on_after_their_client_a_worker_and_the_scheduler_were_killed(
    home, tmp_path
) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    steps = {name: STEPS[name] for name in ("extract", "normalize")}
    outs = {name: f"whole/{name}-killed" for name in steps}
    commands = [(*steps[name], "--out", outs[name], "--scheduler", address) for name in steps]

    def run_until(n: int, end: Callable[[subprocess.Popen[str]], None]) -> list[str]:
        """Begin each command, interfere when it has written n files more, and await its end."""
        told = []
        for name, command in zip(steps, commands, strict=True):
            before = n_results(home / outs[name])
            client = begin(home, *command)
            enough = partial(lambda name, n: n_results(home / outs[name]) >= n, name, before + n)
            try:
                wait_until(lambda: enough() or client.poll() is not None)  # noqa: B023
                end(client)
                told.append(client.communicate(timeout=120)[1])
            finally:
                client.kill()
                client.communicate()
        return told

    with scheduler(port) as first, worker(port, "--no-nanny", folder=tmp_path) as one:
        with worker(port, folder=tmp_path):
            run_until(1, lambda client: client.kill())
            run_until(1, lambda _: one.kill())
        with worker(port, folder=tmp_path):
            for out in outs.values():  # what is done needs no scheduler
                shutil.rmtree(home / out)
            told = run_until(1, lambda _: first.kill())
    assert "no Dask scheduler answers" in told[-1]
    assert not any("Traceback" in text for text in told), told
    with scheduler(port), worker(port, folder=tmp_path):
        told = run_until(0, lambda _: None)
    for name in steps:
        assert content(home / outs[name]) == content(home / "whole" / name), told
        assert not list((home / outs[name]).rglob("*.partial-*"))


@pytest.mark.parametrize("name", ["extract", "detect", "segment", "predict"])
def test_a_slide_that_kills_each_worker_fails_and_the_others_are_done(name, home, address) -> None:
    for folder, end in (("slides", "tif"), ("regions", "geojson")):
        shutil.copy(home / folder / f"s1.{end}", home / folder / f"{KILLS}.{end}")
    table = (home / "slides.csv").read_text().splitlines()
    table.insert(2, f"slides/{KILLS}.tif,{KILLS},p0,PAS")
    (home / "with.csv").write_text("\n".join(table))
    arguments = [one if one != "slides.csv" else "with.csv" for one in STEPS[name]]
    out = home / "killed" / name
    done = glomerulab(home, *arguments, "--out", out, "--scheduler", address)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if name == "predict":
        glomerulab(home, "cohort", "merge", out)
    failures = pd.read_csv(out / "failures.csv")
    assert failures.iloc[:, 0].tolist() == ["p0" if name == "predict" else KILLS]
    assert failures["reason"].str.contains("killed 3 times").all()
    there = {key: it for key, it in content(out).items() if KILLS not in key}
    whole = content(home / "whole" / name)
    kept = [key for key in whole if there.get(key) != whole[key]]
    assert kept == []


@pytest.mark.parametrize("name", ["normalize", "explain", "manifest"])
def test_an_image_that_kills_each_worker_is_named_and_the_others_are_done(
    name, home, address
) -> None:
    manifest = pd.read_csv(home / CROPS)
    folder = home / "whole" / "with"
    folder.mkdir(exist_ok=True)
    manifest["image_path"] = "../extract/" + manifest["image_path"]
    shutil.copy(folder / manifest["image_path"].iloc[0], folder / f"{KILLS}.png")
    row = manifest.iloc[:1].assign(
        image_id=KILLS, image_path=f"{KILLS}.png", slide_id=KILLS, region_id=KILLS
    )
    pd.concat([manifest, row]).to_csv(folder / "manifest.csv", index=False)
    given = ("manifest", "check", CROPS) if name == "manifest" else STEPS[name]
    arguments = [one if one != CROPS else "whole/with/manifest.csv" for one in given]
    out = ("--out", f"killed/{name}") if name != "manifest" else ()
    done = glomerulab(home, *arguments, *out, "--scheduler", address)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if name == "manifest":
        assert "killed 3 times" in done.stdout
        return
    table = pd.read_csv(
        home / "killed" / name / ("manifest.csv" if name == "normalize" else "explanations.csv")
    )
    failed = table[table["image_id"] == KILLS]
    assert failed.filter(regex="reason").squeeze("columns").str.contains("killed 3 times").all()
    whole = {k: v for k, v in content(home / "whole" / name).items() if k.endswith(".png")}
    there = content(home / "killed" / name)
    assert {key: there[key] for key in whole} == whole


def test_a_worker_whose_disk_is_full_leaves_its_work_to_the_other(home, tmp_path) -> None:
    port = free_port()
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(small)
    full = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path / 'hook'}:{ENVIRONMENT['PYTHONPATH']}"}
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(port), worker(port, folder=tmp_path, environment=full):
        done = glomerulab(home, *STEPS["extract"], "--out", "full", "--scheduler", address)
        assert done.returncode == 1
        assert "File too large" in done.stderr
        assert "Traceback" not in done.stderr
        with worker(port, folder=tmp_path):
            wait = ("manifest", "check", "crops/manifest.csv", "--scheduler", address)
            wait_until(lambda: glomerulab(home, *wait).returncode == 0)
            done = glomerulab(home, *STEPS["extract"], "--out", "full", "--scheduler", address)
    assert done.returncode == 0, done.stderr
    assert content(home / "full") == content(home / "whole" / "extract")
