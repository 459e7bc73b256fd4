"""What a cohort costs beside the work itself, each measure beside a bare loop or pool.

    python benchmarks/cohort.py overhead [--tasks 1000 10000 100000]
    python benchmarks/cohort.py resume [--cases 100000]
    python benchmarks/cohort.py read [--rows 10000000]
    python benchmarks/cohort.py slides RUN [--slides 200] [--detector DETECTOR]
    python benchmarks/cohort.py chaos RUN [--minutes 10] [--cases 1300]

Everything runs on one machine: there is no network and no shared file system. All slides are
phantoms (synthetic).
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from glomerulab.runtime.cluster import open_workers
from glomerulab.runtime.parallel import map_outcomes

COMMAND = [sys.executable, "-m", "glomerulab"]
N_RENDERED = 4
ADDRESS = "tcp://127.0.0.1:18787"
KILL_EVERY_S = 30


def nothing(number: int) -> int:
    return number


def write_small(folder: Path, number: int) -> int:
    (folder / f"{number:07}.json").write_text(f'{{"number": {number}}}\n')
    return number


@contextmanager
def dask(*command: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run processes of Dask, and end them."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"},
        )
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def n_files(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def overhead(numbers: Sequence[int]) -> None:
    address = "tcp://127.0.0.1:18786"
    print(
        "| tasks | driver CPU per task, ms | wall per task, ms | driver MiB | scheduler MiB |"
        " bare pool, wall per task, ms |"
    )
    print("|---|---|---|---|---|---|")
    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard") as schedulers,
        dask("worker", address, "--nthreads", "1", "--no-dashboard", count=2),
        open_workers(address) as workers,
    ):
        list(map_outcomes(nothing, range(200), workers=workers))
        rows = []
        for n in numbers:
            with tempfile.TemporaryDirectory() as folder:
                work: Callable[[int], int] = partial(write_small, Path(folder))
                cpu, start = time.process_time(), time.perf_counter()
                outcomes = map_outcomes(work, range(n), workers=workers)
                ends = [time.perf_counter() - start for _ in outcomes]
                cpu = time.process_time() - cpu
            rows.append(
                f"| {n} | {1000 * cpu / n:.2f} | {1000 * ends[-1] / n:.2f} | "
                f"{megabytes(os.getpid()):.0f} | {megabytes(schedulers[0].pid):.0f} | "
            )
    # Afterwards: the pool keeps a future of each task, and the driver their memory.
    for n, row in zip(numbers, rows, strict=True):
        start = time.perf_counter()
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(nothing, range(n)))
        print(f"{row}{1000 * (time.perf_counter() - start) / n:.2f} |", flush=True)
    every = np.array(ends[999::1000])
    numbers_done = np.arange(1, len(every) + 1, dtype=float)
    design = np.column_stack([np.ones_like(numbers_done), numbers_done, numbers_done**2])
    _, b, c = np.linalg.lstsq(design, every, rcond=None)[0]
    n = numbers_done[-1]
    print(f"\nquadratic part at {len(ends)} tasks: {100 * c * n**2 / (b * n + c * n**2):.1f} %")


def resume(n_cases: int) -> None:
    from glomerulab.pipeline.cohort import CohortFolder

    run = small_run()
    print("| done | first new case begun, s | of one core | ended, s | of one core |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        table = Path(home) / "slides.csv"
        rows = [f"missing.tif,s{n},p{n},PAS\n" for n in range(n_cases)]
        table.write_text("slide_path,slide_id,patient_id,stain\n" + "".join(rows))
        out = Path(home) / "out"
        for share in (0.0, 0.5, 0.99):
            status = out / "status"
            shutil.rmtree(status, ignore_errors=True)
            status.mkdir(parents=True)
            for number in range(int(share * n_cases)):
                (status / f"p{number}.done.json").write_text("{}")
            first = status / f"p{int(share * n_cases)}"
            ends = [first.with_suffix(f".{end}.json") for end in ("done", "failed")]
            command = [*COMMAND, "predict", table, "--model", run, "--regions", home]
            start = time.perf_counter()
            process = subprocess.Popen(
                [*map(str, command), "--out", str(out), "--cohort"], stderr=subprocess.DEVNULL
            )
            cells = []
            for marks in ([first.with_suffix(".claim"), *ends], ends):
                while not any(one.exists() for one in marks) and process.poll() is None:
                    time.sleep(0.01)
                used = psutil.Process(process.pid).cpu_times()
                cells += [time.perf_counter() - start, used.user + used.system]
            process.kill()
            process.wait()
            row = " | ".join(f"{cell:.1f}" for cell in cells)
            print(f"| {share:.0%} of {n_cases} | {row} |", flush=True)
        assert CohortFolder(out).states()


def read(n_rows: int) -> None:
    import pyarrow.dataset
    import pyarrow.parquet

    from glomerulab.pipeline.cohort_merge import _schema

    labels = ("normal", "mspgn", "fsg", "cgn")
    schema = _schema(labels)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home:
        calls = Path(home) / "calls"
        per_shard = 20_000
        for shard in range(n_rows // per_shard):
            columns: dict[str, object] = {}
            for field in schema:
                if field.type == "string":
                    columns[field.name] = [f"{field.name}{n}" for n in range(per_shard)]
                else:
                    columns[field.name] = rng.random(per_shard).round()
            folder = calls / f"shard={shard:05}"
            folder.mkdir(parents=True)
            table = pyarrow.table(columns).cast(schema)
            pyarrow.parquet.write_table(table, folder / "calls.parquet")
        start = time.perf_counter()
        found = pyarrow.dataset.dataset(calls, partitioning="hive").to_table(
            columns=["case", "image_id", *(f"probability_{one}" for one in labels)]
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(found)} rows, ids and probabilities: {seconds:.1f} s, peak {peak:.1f} GiB")
    del found
    report(n_rows // 100)


def report(n_cases: int) -> None:
    """Measure the page of a cohort, with as many states of cases on disk."""
    from glomerulab.pipeline.cohort_folder import CaseCounts, CohortFolder, Status
    from glomerulab.pipeline.cohort_merge import _facts
    from glomerulab.reports.cohort import write_cohort_page

    names = [f"p{number}" for number in range(n_cases)]
    with tempfile.TemporaryDirectory() as home:
        folder = CohortFolder(Path(home))
        folder.begin({}, pd.DataFrame({"case": names, "name": names, "source": names}), created="")
        for number, name in enumerate(names):
            facts = CaseCounts(
                seconds=number % 60, images=100, glomeruli=100, grades={"M": str(number % 2)}
            )
            status = Status(name=name, case=name, state="done", reason="", facts=facts)
            path = folder.folder / "status" / f"{name}.done.json"
            path.write_text(status.model_dump_json(exclude={"name"}))
        start = time.perf_counter()
        statuses = [folder.status(name) for name in folder.cases()["name"]]
        page = Path(home) / "cohort.html"
        write_cohort_page(_facts(folder, statuses, n_slide_failures=0), page)
        seconds, n_bytes = time.perf_counter() - start, page.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"page of {n_cases} cases: {seconds:.1f} s, {n_bytes} bytes, peak {peak:.1f} GiB")


def small_run() -> Path:
    """Return a run folder of a small network on synthetic pictures."""
    from tests.support.model_runs import train_small_run

    return train_small_run(Path(tempfile.mkdtemp()))


def phantoms(home: Path, run: Path, n_slides: int) -> Path:
    """Return the table of slides of as many patients; few are rendered, the others are copies."""
    from glomerulab.inference.engines.open import open_engine
    from glomerulab.phantom.slides import write_phantom_slides

    mpp = open_engine(run).card.mpp
    table = write_phantom_slides(
        home / "phantom", n_patients=min(n_slides, N_RENDERED), n_glomeruli=4, seed=7, mpp=mpp
    )
    rendered = pd.read_csv(table)
    rows = rendered.iloc[np.arange(n_slides) % len(rendered)].reset_index(drop=True)
    names = rows["slide_id"] + [f"-{number}" for number in range(n_slides)]
    regions = table.parent / "regions"
    of_slide = {path.stem: path.read_bytes() for path in regions.iterdir()}
    shutil.rmtree(regions)  # a file called after the slide's file would be a second one
    regions.mkdir()
    for old, new in zip(rows["slide_id"], names, strict=True):
        (regions / f"{new}.geojson").write_bytes(of_slide[old])
    rows.assign(slide_id=names, patient_id=names).to_csv(table, index=False)
    return table


def predict_command(table: Path, run: Path, detector: Path | None) -> list[str]:
    how = ["--detect", detector] if detector else ["--regions", table.parent / "regions"]
    return [str(one) for one in (*COMMAND, "predict", table, "--model", run, *how)]


def predict_alone(command: Sequence[str], table: Path, out: Path, patient: str) -> None:
    """Run the work of one case in a process of a bare pool."""
    from glomerulab.pipeline.predict import PredictSettings, predict

    rows = pd.read_csv(table)
    own = out / f"{patient}.csv"
    mine = rows[rows["patient_id"] == patient].copy()
    mine["slide_path"] = [str(table.parent / path) for path in mine["slide_path"]]
    mine.to_csv(own, index=False)
    first = command.index("--model")
    arguments = dict(zip(command[first::2], command[first + 1 :: 2], strict=True))
    detector = arguments.get("--detect")
    regions = arguments.get("--regions")
    predict(
        own,
        arguments["--model"],
        out / patient,
        settings=PredictSettings(regions, detector=detector),
    )


def slides(run: Path, n_slides: int, detector: Path | None) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        table = phantoms(home, run, n_slides)
        command = predict_command(table, run, detector)
        seconds: dict[str, float] = {}
        for name, options in {
            "1 worker": ["--cohort"],
            "2 workers": ["--workers", "2", "--cohort"],
        }.items():
            start = time.perf_counter()
            subprocess.run(
                [*command, *options, "--out", str(home / name)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            seconds[name] = time.perf_counter() - start
        bare = home / "bare"
        bare.mkdir()
        patients = pd.read_csv(table)["patient_id"].unique()
        start = time.perf_counter()
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(predict_alone, command, table, bare), patients))
        seconds["bare pool of 2, predict per case"] = time.perf_counter() - start
    for name, value in seconds.items():
        print(f"{name}: {value:.1f} s")
    print(f"2 workers over 1: {seconds['1 worker'] / seconds['2 workers']:.2f}")
    print(f"bare pool over 2 workers: {seconds[name] / seconds['2 workers']:.2f}")


def chaos(run: Path, minutes: float, n_cases: int) -> None:
    from glomerulab.pipeline.cohort_folder import CohortFolder
    from glomerulab.pipeline.cohort_merge import merge_cohort
    from tests.support.cohorts import content

    os.environ |= {"SOURCE_DATE_EPOCH": "1764460800", "OMP_NUM_THREADS": "1"}
    n_killed = n_calls = 0
    with tempfile.TemporaryDirectory() as text, Path(os.devnull).open("wb") as log:
        home = Path(text)
        whole, out = home / "whole", home / "out"
        command = predict_command(phantoms(home, run, n_cases), run, None)
        start = time.monotonic()
        undisturbed = [*command, "--workers", "2", "--cohort", "--out", whole]
        subprocess.run(undisturbed, stdout=log, stderr=log, check=False)
        print(f"undisturbed, 2 workers: {time.monotonic() - start:.0f} s", flush=True)
        start, n_ended = time.monotonic(), 0
        while n_ended < n_cases:
            n_calls += 1
            n_killed = kill_until(
                [*command, "--scheduler", ADDRESS, "--out", str(out)],
                start + 60 * minutes,
                n_killed,
            )
            states = CohortFolder(out).states().values()
            n_ended = sum(1 for state in states if state in {"done", "failed"})
        seconds = time.monotonic() - start
        merge_cohort(whole)
        merge_cohort(out)
        same = content(whole) == content(out)
        n_done = n_files(out / "cases")
    scheduler = "the scheduler once" if n_killed >= 2 else "workers alone"
    print(
        f"{n_done} cases in {seconds:.0f} s, {n_killed} kills, {scheduler}, {n_calls} calls: "
        f"bytes equal: {same}"
    )


def kill_until(command: Sequence[str], end: float, n_killed: int) -> int:
    """Run a command on two workers, of which one is killed every 30 s; return the count of kills.

    The second kill of all is that of the scheduler.
    """
    port = ADDRESS.rpartition(":")[2]
    with (
        ExitStack() as processes,
        dask("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard") as schedulers,
    ):
        worker = ("worker", ADDRESS, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        workers = [processes.enter_context(dask(*worker))[0] for _ in range(2)]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with suppress(subprocess.TimeoutExpired):
                client.wait(KILL_EVERY_S)
                return n_killed
            if time.monotonic() > end:
                client.wait()
                return n_killed
            n_killed += 1
            if n_killed == 2:
                schedulers[0].kill()
                client.wait()  # it ends by itself, with a message
                return n_killed
            victim = random.randrange(2)
            workers[victim].kill()
            workers[victim] = processes.enter_context(dask(*worker))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overhead")
    one.add_argument("--tasks", type=int, nargs="+", default=[1000, 10_000, 100_000])
    one = commands.add_parser("resume")
    one.add_argument("--cases", type=int, default=100_000)
    one = commands.add_parser("read")
    one.add_argument("--rows", type=int, default=10_000_000)
    one = commands.add_parser("slides")
    one.add_argument("run", type=Path)
    one.add_argument("--slides", type=int, default=200)
    one.add_argument("--detector", type=Path)
    one = commands.add_parser("chaos")
    one.add_argument("run", type=Path)
    one.add_argument("--minutes", type=float, default=10)
    one.add_argument("--cases", type=int, default=1300)
    given = parser.parse_args()
    if given.command == "overhead":
        overhead(given.tasks)
    elif given.command == "resume":
        resume(given.cases)
    elif given.command == "read":
        read(given.rows)
    elif given.command == "slides":
        slides(given.run, given.slides, given.detector)
    else:
        chaos(given.run, given.minutes, given.cases)


if __name__ == "__main__":
    main()
