import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glomerulab.apps.annotation.store.annotations import list_annotations
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.geometry import Region
from glomerulab.slides.regions.files import read_regions, write_regions
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, image_manifest, save

N_WRITERS = 10


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["annotate", *map(str, arguments)])
    assert result.exit_code == code, result.output or result.exception
    return result.output if code == 0 else f"{result.output}{result.exception}"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_manifest(image_manifest(4, folder=tmp_path), tmp_path / "manifest.csv")
    (tmp_path / "password").write_text("a long enough password\n")
    password = ("--password-file", tmp_path / "password")
    database = tmp_path / "study.db"
    _run("create", database, "--manifest", tmp_path / "manifest.csv", "--repeat", "0", *password)
    for login in ("anna", "bo", "chen"):
        _run("add-annotator", database, login, "--name", f"Dr {login}", *password)
        if login == "bo":
            _run("distribute", database)
    return database


def test_a_study_from_its_manifest_to_the_papers_json(study: Path, tmp_path: Path) -> None:
    with open_store(study) as store:
        for image_id, anna, bo in (
            ("g000", NORMAL, NORMAL),
            ("g001", CRESCENT, SCLEROSIS),
            ("g002", CRESCENT, NORMAL),
        ):
            save(store, "anna", image_id, anna)
            save(store, "bo", image_id, bo)
        save(store, "anna", "g003", skip_reason="torn")
    assert "anna: 4 of 4 (1 skipped, 0 unsure), median 2.0 s" in _run("progress", study)
    assert "g001  anna: cgn; bo: fsg" in _run("disagreements", study)
    assert "cohen" in _run("agreement", study, "--out", tmp_path / "agreement")
    assert (tmp_path / "agreement" / "agreement_confusion.csv").is_file()
    consensus = _run("adjudicate", study, "g001", "--label", "Crescent", "--note", "fibrous")
    assert "g001: cgn, by consensus, version 1" in consensus
    assert "2 settled" not in _run("adjudicate", study, "--majority")
    assert "1 images assigned to chen" in _run("distribute", study, "--third-reader", "chen")
    with open_store(study) as store:
        save(store, "chen", "g002", NORMAL)
    assert "1 settled, 0 left" in _run("adjudicate", study, "--third")
    assert "0 disagreement(s)" in _run("disagreements", study)
    assert "2 disagreement(s)" in _run("disagreements", study, "--settled")

    out = _run("export", study, "--out", tmp_path / "labels.json")
    assert "4 images, 1 of them not settled" in out
    assert "not settled: g003: anna skipped it: torn; bo has not read it yet" in out
    written = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert [one["新月体形成"] for one in written] == [0, 1, 0, None]
    assert [one["正常肾小球"] for one in written] == [1, 0, 1, None]
    head = re.search(r"Head: (\d+:[0-9a-f]{64})", out)[1]
    assert "none was altered" in _run("verify", study, "--head", head)


def test_skipped_images_are_named_given_to_another_reader_or_left_out(study: Path) -> None:
    with open_store(study) as store:
        for image_id in ("g000", "g001"):
            save(store, "anna", image_id, skip_reason="torn")
            save(store, "bo", image_id, CRESCENT)
    assert "0 disagreement(s); 4 incomplete" in _run("disagreements", study)
    listed = _run("disagreements", study, "--incomplete")
    assert "g000  anna skipped it: torn" in listed
    assert "--exclude" in _run("adjudicate", study, "g000", "--exclude", "--none", code=1)
    assert "left out" in _run("adjudicate", study, "g000", "--exclude")
    assert "1 of 1 skipped" in _run("distribute", study, "--further-reader", "chen")
    assert "chen has not read it yet" in _run("disagreements", study, "--incomplete")


def test_an_adjudicator_has_no_queue(study: Path, tmp_path: Path) -> None:
    password = ("--password-file", tmp_path / "password")
    added = _run("add-annotator", study, "dora", "--adjudicator", *password)
    assert "dora: adjudicator" in added
    assert "0 images distributed" in _run("distribute", study)
    assert "dora" not in _run("progress", study)
    assert "one of --owner" in _run(
        "add-annotator", study, "eve", "--adjudicator", "--owner", *password, code=1
    )


def test_every_kind_of_export_is_written(study: Path, tmp_path: Path) -> None:
    with open_store(study) as store:
        save(store, "anna", "g000", NORMAL)
        save(store, "anna", "g000", CRESCENT)
    _run("export", study, "--what", "soft", "--out", tmp_path / "soft.csv")
    assert read_manifest(tmp_path / "soft.csv").table["soft_cgn"].tolist()[0] == "1.0"
    _run("export", study, "--what", "labels", "--annotator", "anna", "--out", tmp_path / "anna.csv")
    assert read_manifest(tmp_path / "anna.csv").table["cgn"].tolist() == [1]
    assert "1 annotations" in _run(
        "export", study, "--what", "annotations", "--out", tmp_path / "now.csv"
    )
    assert "2 annotations" in _run(
        "export", study, "--what", "history", "--out", tmp_path / "all.csv"
    )
    _run("export", study, "--what", "audit", "--out", tmp_path / "audit.jsonl")
    kinds = [
        json.loads(line)["kind"]
        for line in (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert kinds.count("annotation") == 2
    assert "give exactly one" in _run("adjudicate", study, code=1)
    assert "soft labels" in _run(
        "export", study, "--what", "soft", "--out", tmp_path / "soft.json", code=1
    )


def test_old_labels_and_new_images_join_a_study(study: Path, tmp_path: Path) -> None:
    labels = tmp_path / "old.json"
    labels.write_text('[{"image_name": "g001.png", "新月体形成": 1}]', encoding="utf-8")
    assert "1 readings of bo imported" in _run(
        "import", study, "--labels", labels, "--annotator", "bo"
    )
    more = tmp_path / "more"
    more.mkdir()
    write_manifest(image_manifest(6, folder=tmp_path), more / "manifest.csv")
    assert "2 new images" in _run("import", study, "--images", more / "manifest.csv")
    assert "2 images distributed" in _run("distribute", study)
    assert "--annotator" in _run("import", study, "--labels", labels, code=1)
    assert "give exactly one" in _run("import", study, code=1)


@pytest.mark.parametrize("option", [("--ignore-bounds",), ("--class", "cgn"), ("--drawn-mpp", "1")])
def test_options_of_regions_need_regions(study: Path, tmp_path: Path, option) -> None:
    output = _run("import", study, "--images", tmp_path / "manifest.csv", *option, code=1)
    assert "--regions" in output


def test_proposals_of_a_segmenter_come_in_and_masks_go_out(
    study: Path, tmp_path: Path, make_slide
) -> None:
    slide, proposed = make_slide("S-1.tiff"), tmp_path / "proposed.geojson"
    ring = ((300.0, 200.0), (500.0, 200.0), (500.0, 400.0), (300.0, 400.0))
    hole = ((350.0, 250.0), (450.0, 250.0), (450.0, 350.0), (350.0, 350.0))
    regions = [Region("t", ring, ("Tubule",), holes=(hole,)), Region("g", hole)]
    write_regions(regions, proposed)
    given = ("--slide", slide, "--annotator", "anna")
    assert "2 regions of anna imported" in _run("import", study, "--regions", proposed, *given)
    _run("export", study, "--what", "regions", "--slide", slide, "--out", tmp_path / "o.geojson")
    assert {one.holes for one in read_regions(tmp_path / "o.geojson")} == {(), (hole,)}
    out = _run("export", study, "--what", "masks", "--slide", slide, "--out", tmp_path / "masks")
    assert "masks of 1 slide at 1 µm per pixel (1 glomerulus, 1 tubule)" in out
    masks = {one.parent.name for one in (tmp_path / "masks" / "masks").glob("*/S-1.png")}
    assert masks == {"glomerulus", "tubule"}
    assert "--slide" in _run("export", study, "--what", "masks", "--out", tmp_path, code=1)


def test_an_altered_database_ends_the_check_with_an_error(study: Path) -> None:
    with open_store(study) as store, store.writing() as connection:
        connection.exec_driver_sql("UPDATE event SET actor = 'eve' WHERE kind = 'study'")
    assert "entry 2 (study) was changed" in _run("verify", study, code=1)


def test_an_account_is_deactivated_and_reactivated(study: Path, tmp_path: Path) -> None:
    assert "inactive" in _run("account", study, "anna", "--inactive")
    renewed = _run("account", study, "anna", "--active", "--password-file", tmp_path / "password")
    assert "anna: annotator 'Dr anna', active" in renewed
    _run("add-annotator", study, "dora", "--owner", "--password-file", tmp_path / "password")
    assert "--as LOGIN" in _run("distribute", study, code=1)
    _run("distribute", study, "--as", "dora")


WRITER = """
import sys, threading, uuid
from glomerulab.apps.annotation.records import AnnotationContent
from glomerulab.apps.annotation.store.annotations import list_items, save_annotation
from glomerulab.apps.annotation.store.database import open_store

store = open_store(sys.argv[1])
queues = {f"w{n}": list_items(store, f"w{n}") for n in range(10)}  # read before anyone writes
lock = threading.Lock()

def work(login):
    for item in queues[login]:
        key = str(uuid.uuid4())
        save_annotation(
            store, login=login, assignment_id=item.assignment_id,
            content=AnnotationContent({"cgn": 1}), expected_version=0, save_key=key, seconds=1.0,
        )
        with lock:  # printed only after the save was acknowledged
            sys.stdout.write(f"{login} {item.assignment_id} {key}\\n")
            sys.stdout.flush()

threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("kill_after", [137, 512])
def test_every_acknowledged_save_outlives_a_kill_of_ten_writers_and_none_is_there_twice(
    tmp_path: Path, kill_after: int
) -> None:
    write_manifest(image_manifest(100, folder=tmp_path), tmp_path / "manifest.csv")
    (tmp_path / "password").write_text("a long enough password\n")
    password = ("--password-file", tmp_path / "password")
    database = tmp_path / "study.db"
    _run(
        "create",
        database,
        "--manifest",
        tmp_path / "manifest.csv",
        "--readers",
        N_WRITERS,
        "--repeat",
        "0",
        *password,
    )
    for number in range(N_WRITERS):
        _run("add-annotator", database, f"w{number}", *password)
    assert "1000 readings" in _run("distribute", database)
    acknowledged = _kill_after(database, kill_after)
    assert len(acknowledged) >= kill_after

    with open_store(database) as store:
        there = list_annotations(store, by="owner", every_version=True)
    items = [(one.login, str(one.assignment_id)) for one in there]
    assert len(items) == len(set(items))
    assert {(login, item) for login, item, _ in acknowledged} <= set(items)
    # At most one save of each writer was stored and not yet acknowledged.
    assert len(items) <= len(acknowledged) + N_WRITERS
    assert "none was altered" in _run("verify", database)


def _kill_after(database: Path, n_saves: int) -> list[tuple[str, ...]]:
    """Let ten writers save, kill -9 their process in the middle; give what was acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True
    )
    lines = [writer.stdout.readline() for _ in range(n_saves)]
    os.kill(writer.pid, signal.SIGKILL)
    lines += writer.stdout.readlines()
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    return [tuple(line.split()) for line in lines if line.endswith("\n")]
