"""Commands check their input before they ask a queue for jobs, and ask for none without work."""

import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Run
from tests.support.killed_commands import write_inputs
from tests.support.segmenters import write_segmenter

CROPS = "crops/manifest.csv"
RUN = "trained/run"
GOOD = {
    "extract": ("extract", "slides", "--regions", "regions"),
    "detect": ("extract", "slides", "--detect", "segmenter"),
    "normalize": ("normalize", CROPS, "--target-pas", "pas.png", "--trust-stains", "--keep-others"),
    "embed": ("embed", CROPS, "--model", RUN),
    "predict": ("predict", "slides", "--model", RUN, "--regions", "regions"),
    "segment": ("segment", "slides", "--model", "segmenter"),
    "explain": ("explain", RUN, CROPS, "--sanity", "0"),
    "report": ("report", "cohort", "--format", "csv"),
    "check": ("manifest", "check", CROPS),
}
WITHOUT_OUT = {"report", "check"}
NOWHERE = "nowhere"
BAD = [
    ("extract", {"slides": NOWHERE}),
    ("extract", {"slides": "broken.csv"}),
    ("extract", {"regions": NOWHERE}),
    ("extract", {"--out": "foreign"}),
    ("extract", {"--part": "3/2"}),
    ("extract", {"--class": "cgn=nosuchlabel"}),
    ("extract", {"--taxonomy": NOWHERE}),
    ("detect", {"segmenter": NOWHERE}),
    ("detect", {"segmenter": RUN}),
    ("detect", {"--out": "foreign"}),
    ("detect", {"--out": "file.txt"}),
    ("detect", {"--part": "1/2", "--overwrite": None}),
    ("detect", {"--class": "cgn"}),
    ("normalize", {CROPS: NOWHERE}),
    ("normalize", {CROPS: "broken.csv"}),
    ("normalize", {"pas.png": NOWHERE}),
    ("normalize", {"--out": "crops"}),
    ("normalize", {"--part": "0/2"}),
    ("embed", {CROPS: NOWHERE}),
    ("embed", {CROPS: "broken.csv"}),
    ("embed", {RUN: NOWHERE}),
    ("embed", {"--views": "3"}),
    ("embed", {"--out": "file.txt"}),
    ("embed", {"--part": "1"}),
    ("predict", {"slides": NOWHERE}),
    ("predict", {"slides": "broken.csv"}),
    ("predict", {RUN: NOWHERE}),
    ("predict", {"regions": NOWHERE}),
    ("predict", {"--detect": "segmenter"}),
    ("predict", {"--out": "predictions"}),
    ("predict", {"--part": "x"}),
    ("segment", {"slides": NOWHERE}),
    ("segment", {"segmenter": NOWHERE}),
    ("segment", {"--format": "docx"}),
    ("segment", {"--out": "file.txt"}),
    ("segment", {"--part": "2/1"}),
    ("explain", {RUN: NOWHERE}),
    ("explain", {CROPS: NOWHERE}),
    ("explain", {CROPS: "broken.csv"}),
    ("explain", {"--masks": NOWHERE}),
    ("explain", {"--label": "nosuchlabel"}),
    ("explain", {"--out": "file.txt"}),
    ("report", {"cohort": NOWHERE}),
    ("report", {"cohort": "damaged"}),
    ("report", {"--structures": NOWHERE}),
    ("report", {"--references": NOWHERE}),
    ("report", {"--rules": NOWHERE}),
    ("check", {CROPS: NOWHERE}),
    ("check", {CROPS: "file.txt"}),
]


@pytest.fixture(scope="module")
def inputs(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("inputs")
    write_inputs(home, trained)
    write_segmenter(home / "segmenter")
    (home / "broken.csv").write_text("image_id,image_path,cgn\na,a.png,perhaps\na,b.png,1\n")
    (home / "file.txt").write_text("a file in place of a folder")
    (home / "foreign").mkdir()
    shutil.copy(home / CROPS, home / "foreign")
    (home / "cluster.toml").write_text('kind = "pbs"\nmemory = "1GB"\n')  # there is no such queue
    return home


@pytest.fixture
def home(inputs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs as the working folder; a cohort is there when the first test needs it."""
    monkeypatch.chdir(inputs)
    if not (inputs / "cohort").exists():
        assert run(*GOOD["predict"], "--cohort", "--out", "cohort").returncode == 0
        (inputs / "damaged").mkdir()
        (inputs / "damaged" / "cohort.json").write_text("{")
    return inputs


def command(name: str, out: Path, change: dict[str, str | None]) -> list[str]:
    arguments = [change.get(one) or one for one in GOOD[name]]
    options = {} if name in WITHOUT_OUT else {"--out": str(out)}
    options |= {key: value for key, value in change.items() if key.startswith("--")}
    for key, value in options.items():
        arguments += [key] if value is None else [key, value]
    return [*arguments, "--cluster", "cluster.toml"]


@pytest.mark.parametrize("name", GOOD)
def test_with_good_input_the_queue_is_asked_for_jobs(name, home, run, tmp_path) -> None:
    done = run(*command(name, tmp_path / "out", {}))
    assert done.returncode == 1
    assert "the queue takes no job" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "change"), BAD)
def test_bad_input_is_told_and_no_job_is_asked_for(name, change, home, run, tmp_path) -> None:
    shutil.rmtree(home / "logs", ignore_errors=True)
    done = run(*command(name, tmp_path / "out", change))
    assert done.returncode in {1, 2}
    assert "queue" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "logs").exists()  # which a cluster makes when it is opened


def test_a_cohort_that_is_done_asks_for_no_job(home, run) -> None:
    shutil.rmtree(home / "logs", ignore_errors=True)
    done = run(*command("predict", home / "cohort", {}))
    assert done.returncode == 0, done.stderr
    assert not (home / "logs").exists()
