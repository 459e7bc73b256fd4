"""Saves per second of the annotation store, against a bare loop of commits on the same disk.

    python benchmarks/annotation_store.py [postgresql://user@host/database]

Every save is a transaction that is on disk when it returns. The bare loop inserts one row of
the same size per commit, with the same settings of SQLite, and nothing else.
"""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from glomerulab.apps.annotation.records import AnnotationContent, StudySettings
from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.annotations import list_items, save_annotation
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.apps.annotation.store.study import create_study
from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.taxonomy import load_taxonomy

N_ANNOTATORS = 10
N_IMAGES = 100
N_ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rates = [_bare_loop(Path(folder, f"bare{round_}.db")) for round_ in range(N_ROUNDS)]
        print(f"bare SQLite commits: {max(rates):.0f} a second (best of {N_ROUNDS})")
        _measure("SQLite", lambda n: str(Path(folder, f"study{n}.db")), max(rates))
    if len(sys.argv) > 1:
        mark = "&" if "?" in sys.argv[1] else "?"
        _measure("PostgreSQL", lambda _n: _schema(sys.argv[1], mark), None)


def _measure(kind: str, place: Callable[[int], str], peer: float | None) -> None:
    for n_threads in (1, N_ANNOTATORS):
        best = max(_round(place(10 * n_threads + n), n_threads) for n in range(N_ROUNDS))
        rate, seconds, verified = best
        beside = "" if peer is None else f", {rate / peer:.2f} of the bare loop"
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
        print(
            f"{kind}, {n_threads} at once: {rate:.0f} saves a second{beside}; p50 {p50:.1f} ms, "
            f"p99 {p99:.1f} ms; verifying {verified:.0f} entries a second"
        )


def _round(place: str, n_threads: int) -> tuple[float, list[float], float]:
    """Save every item of every queue once; return saves a second, latencies, entries verified."""
    with open_store(place, create=True) as store:
        logins = _study(store)
        begin = time.perf_counter()
        with ThreadPoolExecutor(n_threads) as pool:
            seconds = [
                s for of_one in pool.map(lambda who: _work(store, who), logins) for s in of_one
            ]
        took = time.perf_counter() - begin
        begin = time.perf_counter()
        found = verify_store(store)
        assert found.problems == ()
        return len(seconds) / took, seconds, found.n_entries / (time.perf_counter() - begin)


def _work(store: Store, login: str) -> list[float]:
    seconds = []
    for item in list_items(store, login):
        begin = time.perf_counter()
        save_annotation(
            store,
            login=login,
            assignment_id=item.assignment_id,
            content=AnnotationContent({"normal": 0, "mspgn": 1, "fsg": 0, "cgn": 0}),
            expected_version=0,
            save_key=str(uuid4()),
            seconds=2.0,
        )
        seconds.append(time.perf_counter() - begin)
    assert all(one.state != "open" for one in list_items(store, login))
    return seconds


def _study(store: Store) -> list[str]:
    create_account(store, login="owner", name="o", role="owner", password="0" * 10, by=None)
    ids = [f"g{number}" for number in range(N_IMAGES)]
    rows = pd.DataFrame({"image_id": ids, "image_path": [f"{name}.png" for name in ids]})
    manifest = manifest_from_rows(rows, folder=Path("/"), taxonomy=load_taxonomy("paper"))
    settings = StudySettings("benchmark", n_readers=N_ANNOTATORS, repeat_share=0.0)
    create_study(store, manifest, owner="owner", settings=settings)
    logins = [f"reader{number}" for number in range(N_ANNOTATORS)]
    for login in logins:
        create_account(
            store, login=login, name=login, role="annotator", password="0" * 10, by="owner"
        )
    distribute(store, by="owner")
    return logins


def _bare_loop(path: Path) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE event (sequence INTEGER PRIMARY KEY, payload TEXT)")
    begin = time.perf_counter()
    for number in range(1000):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO event VALUES (?, ?)", (number + 1, "x" * 700))
        connection.execute("COMMIT")
    rate = 1000 / (time.perf_counter() - begin)
    connection.close()
    return rate


def _schema(url: str, mark: str) -> str:
    import psycopg

    name = f"benchmark_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
    return f"{url}{mark}options=-csearch_path%3D{name}"


if __name__ == "__main__":
    main()
