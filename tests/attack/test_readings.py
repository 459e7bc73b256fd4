"""What people read, entered and corrected is what it was, or the difference is named."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.apps.annotation.store.accounts import open_session, signing_key
from glomerulab.apps.annotation.store.adjudications import adjudicate_all
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.imports import import_model_calls
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.cases.corrections import CorrectionRow, append_rows, read_rows
from glomerulab.errors import GlomerulabError, PredictionsError
from tests.support.annotation_studies import CRESCENT, NORMAL, make_study, save
from tests.support.annotation_web import write_images

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")


def _correction(number: int) -> CorrectionRow:
    time_ = f"2026-02-02T00:00:{number % 60:02}+00:00"
    return CorrectionRow(time_, "新 B", f"g{number}", "fsg", f'seen, "{number}"\ntwice', "1 2 3 4")


def _append_until_killed(path: Path, acknowledged: Path, max_bytes: int | None) -> None:
    """Append and acknowledge rows; the kernel kills the process in the write that passes a size."""
    if max_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND)
    number = len(acknowledged.read_bytes())
    while True:
        rows = [_correction(number)]
        append_rows(path, lambda _stored, rows=rows: rows)
        os.write(file, b".")
        number += 1


def _acknowledged_rows(acknowledged: Path) -> list[CorrectionRow]:
    return [_correction(number) for number in range(len(acknowledged.read_bytes()))]


def test_a_correction_killed_between_two_bytes_loses_and_swallows_nothing(tmp_path) -> None:
    n_torn = 0
    for max_bytes in range(1, 400, 3):
        path, acknowledged = tmp_path / f"{max_bytes}.csv", tmp_path / f"{max_bytes}.acknowledged"
        acknowledged.touch()
        child = FORK.Process(target=_append_until_killed, args=(path, acknowledged, max_bytes))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGXFSZ
        expected = _acknowledged_rows(acknowledged)
        try:
            found = list(read_rows(path))
        except PredictionsError:
            n_torn += 1
            end = b'"1 2 3 4"\n'
            whole, last, _ = path.read_bytes().rpartition(end)
            path.write_bytes(whole + last)  # the way out: the torn row is removed
            found = list(read_rows(path))
        assert found == expected
    assert n_torn > 50


def test_every_correction_acknowledged_before_a_kill_is_there(tmp_path) -> None:
    path, acknowledged = tmp_path / "overrides.csv", tmp_path / "acknowledged"
    acknowledged.touch()
    rng = random.Random(17)
    for _ in range(30):
        child = FORK.Process(target=_append_until_killed, args=(path, acknowledged, None))
        child.start()
        time.sleep(rng.uniform(0.02, 0.2))
        child.kill()
        child.join()
        expected = _acknowledged_rows(acknowledged)
        found = list(read_rows(path))
        assert found[: len(expected)] == expected
        assert len(found) <= len(expected) + 1  # on disk, and killed before it was acknowledged
        acknowledged.write_bytes(b"." * len(found))
    assert len(expected) > 30


NOT_COVERED = {"web_session", "secret", "password_hash", "head_id"}
"""Tables and columns that `verify` says it does not cover; the head has one row, of any number."""
VALUES = (None, 99, 1.5, float("inf"), "x", "a\x00b", b"\xff\xfe")


def _study(folder: Path) -> Path:
    """Write a small study with every kind of row."""
    database = folder / "study.db"
    with open_store(database, create=True) as store:
        make_study(store, manifest=write_images(folder, 4, side=16), repeat_share=0.25)
        for image_id, labels in (("glom_000", NORMAL), ("glom_001", CRESCENT)):
            digest = sha256((folder / "images" / f"{image_id}.png").read_bytes()).hexdigest()
            for login in ("anna", "bo"):
                save(store, login, image_id, labels, image_sha256=digest)
        save(store, "anna", "glom_002", CRESCENT)
        save(store, "bo", "glom_002", NORMAL)
        save(store, "anna", "glom_003", skip_reason="torn")
        adjudicate_all(store, "majority", by="owner")
        calls = pd.DataFrame({"image_id": ["glom_000", "glom_001"]})
        for number, label in enumerate(NORMAL):
            calls[f"probability_{label}"] = [0.1 * number, 0.2 * number]
        import_model_calls(store, calls, source="run", by="owner")
        open_session(store, login="anna", lifetime=timedelta(hours=1))
        signing_key(store)
    return database


def _mutations(database: Path) -> Iterator[tuple[str, str, list[tuple[str, tuple[object, ...]]]]]:
    """Yield table, column and ways to change the first row's cell."""
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for table in (name.decode() for (name,) in connection.execute(query)):
            columns = [row[1].decode() for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = [
                number
                for (number,) in connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")
            ]
            assert rows, table
            where = f"WHERE rowid = {rows[0]}"
            yield table, "", [(f"DELETE FROM {table} {where}", ())]
            for column in columns:
                update = f"UPDATE {table} SET {column} ="
                ways = [(f"{update} ? {where}", (value,)) for value in VALUES]
                for other in rows[1:2]:  # the value of another row
                    taken = f"(SELECT {column} FROM {table} WHERE rowid = {other})"
                    ways.append((f"{update} {taken} {where}", ()))
                ways.append((f"{update} {column} || 'x' {where}", ()))
                ways.append((f"{update} replace({column}, '1', '0') {where}", ()))
                yield table, column, ways


def _tamper(database: Path, table: str, statement: str, values: tuple[object, ...]) -> bool:
    """Return whether the statement changed the table: a constraint may refuse it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.text_factory = bytes
        before = list(connection.execute(f"SELECT * FROM {table}"))
        try:
            connection.execute(statement, values)
        except sqlite3.Error:
            return False
        return list(connection.execute(f"SELECT * FROM {table}")) != before


def _finds_something(database: Path) -> bool:
    try:
        with open_store(database) as store:
            return bool(verify_store(store).problems)
    except GlomerulabError:
        return True


def test_every_tampered_cell_of_a_study_is_found_or_said_not_to_be_covered(tmp_path) -> None:
    database = _study(tmp_path)
    assert not _finds_something(database)
    tried, missed = Counter(), []
    for table, column, ways in list(_mutations(database)):
        for statement, values in ways:
            copy = tmp_path / "copy.db"
            for leftover in tmp_path.glob("copy.db*"):
                leftover.unlink()
            shutil.copy(database, copy)
            if not _tamper(copy, table, statement, values):
                continue
            tried[table, column] += 1
            is_covered = not {table, column} & NOT_COVERED
            # The owner has no items, and remains the first account.
            is_covered &= not (column == "account_id" and "replace(account_id" in statement)
            if not _finds_something(copy) and is_covered:
                missed.append((statement, values))
    assert missed == []
    assert [cell for cell, number in tried.items() if cell[1] and number < 2] == []
    assert tried.total() > 300


def test_two_accounts_whose_numbers_were_swapped_are_found(tmp_path) -> None:
    database = _study(tmp_path)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for login, number in (("anna", 99), ("bo", 2), ("anna", 3)):
            statement = "UPDATE account SET account_id = ? WHERE login = ?"
            connection.execute(statement, (number, login))
    assert _finds_something(database)
