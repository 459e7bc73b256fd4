"""How long each work on a whole study holds the database's write lock.

Run: python benchmarks/annotation_long_work.py [postgresql://user@host/database]

A study of many images with three readers each. A save of a person waits for the longest
transaction at most; reading holds no lock.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sqlalchemy import Connection

from annotation_import import schema
from glomerulab.apps.annotation.records import StudySettings
from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.adjudications import adjudicate_all, list_disagreements
from glomerulab.apps.annotation.store.annotations import study_progress
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.imports import import_labels, import_model_calls
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.apps.annotation.store.study import add_images, create_study, images_from_manifest
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.taxonomy import load_taxonomy

READERS = ("anna", "bo", "cy")
TAXONOMY = load_taxonomy("paper")


class Stopwatch:
    """Measures the transactions that write."""

    def __init__(self, store: Store) -> None:
        self._store, self._writing = store, store.writing
        self._held: list[float] = []
        store.writing = self._timed  # type: ignore[method-assign]

    @contextmanager
    def _timed(self) -> Iterator[Connection]:
        with self._writing() as connection:
            start = time.perf_counter()
            yield connection
        self._held.append(time.perf_counter() - start)

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Print a row of the table."""
        self._held.clear()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        longest = f"{max(self._held) * 1000:.0f}" if self._held else "–"
        print(f"| {name} | {seconds:.1f} | {len(self._held)} | {longest} |", flush=True)


def manifest(n_images: int, seed: int | None = None) -> Manifest:
    """Return images without files, with random labels if a seed is given."""
    ids = [f"g{number:05d}" for number in range(n_images)]
    table = pd.DataFrame({"image_id": ids, "image_path": [f"{one}.png" for one in ids]})
    if seed is not None:
        chosen = np.random.default_rng(seed).integers(0, len(TAXONOMY.label_ids), n_images)
        for number, label_id in enumerate(TAXONOMY.label_ids):
            table[label_id] = (chosen == number).astype(int)
    return manifest_from_rows(table, folder=Path("/"), taxonomy=TAXONOMY)


def predictions(n_images: int, seed: int) -> pd.DataFrame:
    """Return random probabilities."""
    values = np.random.default_rng(seed).dirichlet(np.ones(len(TAXONOMY.label_ids)), n_images)
    columns = [f"probability_{label_id}" for label_id in TAXONOMY.label_ids]
    table = pd.DataFrame(values, columns=columns)
    return table.assign(image_id=manifest(n_images).table["image_id"].to_numpy())


def measure(store: Store, n_images: int) -> None:
    watch = Stopwatch(store)
    create_account(store, login="owner", name="o", role="owner", password="0" * 10, by=None)
    settings = StudySettings("benchmark", n_readers=len(READERS), repeat_share=0.0)
    create_study(store, manifest(1), owner="owner", settings=settings)
    for login in READERS:
        create_account(
            store, login=login, name=login, role="annotator", password="0" * 10, by="owner"
        )
    images = images_from_manifest(manifest(n_images))
    print("\n| work | s | transactions | longest ms |\n|---|---|---|---|")
    watch.measure("add images", lambda: add_images(store, images, by="owner"))
    watch.measure("distribute", lambda: distribute(store, by="owner"))
    for seed, login in enumerate(READERS):
        labelled = manifest(n_images, seed)

        def import_() -> object:
            return import_labels(store, labelled, login=login, by="owner")  # noqa: B023

        watch.measure(f"import labels of {login}", import_)
    for seed, name in enumerate(("import model calls", "replace them")):
        calls = predictions(n_images, seed)
        watch.measure(name, partial(import_model_calls, store, calls, source="m", by="owner"))
    watch.measure("list disagreements", lambda: list_disagreements(store, by="owner"))
    watch.measure("settle by majority", lambda: adjudicate_all(store, "majority", by="owner"))
    watch.measure("progress", lambda: study_progress(store, by="owner"))
    watch.measure("verify", lambda: verify_store(store))
    assert verify_store(store).problems == ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("postgres", nargs="?")
    parser.add_argument("--images", type=int, default=30_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = [str(Path(folder) / "study.db")]
        if arguments.postgres:
            places.append(schema(arguments.postgres))
        for place in places:
            with open_store(place, create=True) as store:
                measure(store, arguments.images)


if __name__ == "__main__":
    main()
