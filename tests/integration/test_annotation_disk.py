"""A database held by another program and a disk that is really full, through the web."""

import sqlite3
import subprocess
import uuid
from contextlib import closing, suppress
from pathlib import Path

from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.ledger import verify_store
from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from tests.support.annotation_studies import history, make_study
from tests.support.annotation_web import HOSTS, Browser, Web, write_images


def open_on(place: Path, images: Path, *, n_images: int) -> Web:
    store = open_store(place / "annotations.db", create=True, busy_timeout_s=0.3)
    make_study(store, manifest=write_images(images, n_images, side=8))
    site = Site(store, SlideCache(), SiteSettings(hosts=HOSTS))
    return Web(images, store, site, create_app(site))


def saved_labels(web: Web, assignment_id: int) -> list[dict[str, int | None]]:
    return [dict(one.content.labels) for one in history(web.store, "anna", assignment_id)]


def save_until_refused(anna: Browser) -> tuple[dict, str, int]:
    """Save item after item; return the first that is refused, its key, and how many were kept."""
    for place in range(1, len(anna.get("/api/items").json()) + 1):
        item, key = anna.get(f"/api/items/{place}").json(), str(uuid.uuid4())
        answer = anna.save(item, save_key=key, note="x" * 4000)
        if answer.status_code != 200:
            assert answer.status_code == 507
            assert "the disk is full; make room and save again" in answer.json()["detail"]
            return item, key, place - 1
    raise AssertionError("the disk never filled")


def test_a_save_waits_for_another_program_and_then_is_stored_once(tmp_path: Path) -> None:
    web = open_on(tmp_path, tmp_path, n_images=2)
    anna = web.client("anna")
    item, key = anna.get("/api/items/1").json(), str(uuid.uuid4())
    with closing(sqlite3.connect(tmp_path / "annotations.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = anna.save(item, save_key=key)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert "another program holds the database" in refused.json()["detail"]
        assert anna.get("/api/items/2").status_code == 200  # looking goes on meanwhile
        other.execute("ROLLBACK")
    assert saved_labels(web, item["assignment_id"]) == []
    stored = [anna.save(item, save_key=key).json()["was_there"] for _ in range(2)]
    assert stored == [False, True]
    assert len(saved_labels(web, item["assignment_id"])) == 1
    web.store.close()


def test_on_a_full_disk_a_save_is_an_error_and_nothing_acknowledged_is_lost(
    tmpfs: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=2m", tmpfs], check=True)
    web = open_on(tmpfs, tmp_path, n_images=60)
    anna = web.client("anna")
    filler = tmpfs / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:  # until there is no room left
            stream.write(bytes(4096))
    item, key, n_kept = save_until_refused(anna)
    filler.unlink()
    assert anna.save(item, save_key=key).json()["was_there"] is False
    states = [one["state"] for one in anna.get("/api/items").json()]
    assert states.count("done") == n_kept + 1
    assert len(saved_labels(web, item["assignment_id"])) == 1
    assert verify_store(web.store).problems == ()
    web.store.close()
