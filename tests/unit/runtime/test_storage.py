"""Objects of moto's server, a real HTTP server, as files of this machine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from glomerulab.errors import StorageError
from glomerulab.runtime import storage
from glomerulab.runtime.storage import (
    begin_output,
    finish_output,
    is_url,
    local_copies,
    local_copy,
    local_path,
    release_copies,
    url_of,
)

KIB = 1 / 2**20
"""One KiB in GiB."""


def test_urls_are_told_from_paths_however_they_are_written() -> None:
    assert is_url("s3://lab/a")
    assert is_url(Path("s3://lab/a"))
    assert not is_url("/s3/b")
    assert not is_url("a.csv")
    assert not is_url("s3:///a")


def test_a_place_in_the_cache_and_its_url_name_each_other(s3: Any) -> None:
    place = local_path(Path("s3://lab/cohort/m.csv"))
    assert place == local_path("s3://lab/cohort/m.csv")
    assert url_of(place.parent / "../images/a.png") == "s3://lab/images/a.png"
    assert url_of(place.parents[4] / "a.png") is None


@pytest.mark.parametrize("url", ["s3://lab/../../etc/passwd", "s3://lab//a", "s3://lab/./a"])
def test_a_url_cannot_leave_the_cache(s3: Any, url: str) -> None:
    with pytest.raises(StorageError):
        local_path(url)


def test_an_object_is_downloaded_once_and_again_when_it_changes(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.pipe("lab/a.csv", b"one")
    place = local_copy("s3://lab/a.csv")
    assert place.read_bytes() == b"one"
    with monkeypatch.context() as patched:
        patched.setattr(storage, "_download", lambda *_: pytest.fail("it is here"))
        local_copy("s3://lab/a.csv")
    s3.pipe("lab/a.csv", b"two")  # of the same size
    assert local_copy("s3://lab/a.csv").read_bytes() == b"two"


def test_a_folder_comes_with_all_that_is_below(s3: Any) -> None:
    names = [f"run/{n % 7}/{n}.bin" for n in range(70)]
    s3.pipe({f"lab/{name}": name.encode() for name in names})
    s3.pipe("lab/running", b"another name")
    place = local_copy("s3://lab/run/")
    found = [path for path in place.rglob("*") if path.is_file()]
    assert sorted(f"run/{path.relative_to(place)}" for path in found) == sorted(names)
    assert all(path.read_text() == f"run/{path.relative_to(place)}" for path in found)


def test_what_was_deleted_in_the_storage_is_no_more_here(s3: Any) -> None:
    s3.pipe({"lab/run/a": b"a", "lab/run/b": b"b", "lab/c": b"c"})
    place = local_copy("s3://lab/run")
    local_copies({"s3://lab/c"})
    s3.rm(["lab/run/a", "lab/c"])
    local_copy("s3://lab/run")
    local_copies({"s3://lab/c"})
    assert [path.name for path in place.iterdir()] == ["b"]
    assert not local_path("s3://lab/c").exists()


def test_missing_objects_are_left_out_or_an_error(s3: Any) -> None:
    s3.pipe("lab/a", b"a")
    local_copies({"s3://lab/a", "s3://lab/none", "s3://lab/folder/none"})
    assert local_path("s3://lab/a").exists()
    assert not local_path("s3://lab/none").exists()
    for url in ("s3://lab/none", "s3://nobucket/a"):
        with pytest.raises(StorageError, match="no such object"):
            local_copy(url)


def test_the_copies_that_were_unused_for_longest_make_room(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOMERULAB_CACHE_GIB", str(2.5 * KIB))
    for name in "abc":
        s3.pipe(f"lab/x/{name}", bytes(1024))
    local_copy("s3://lab/x/a")
    local_copy("s3://lab/x/b")
    local_copy("s3://lab/x/a")
    release_copies()
    local_copy("s3://lab/x/c")
    here = [name for name in "abc" if local_path(f"s3://lab/x/{name}").exists()]
    assert here == ["a", "c"]


def test_what_a_running_process_uses_stays(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOMERULAB_CACHE_GIB", str(1.5 * KIB))
    s3.pipe({"lab/a": bytes(1024), "lab/c": bytes(1024)})
    code = (
        "import sys; from glomerulab.runtime.storage import local_copy; "
        "local_copy('s3://lab/a'); print('here', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        with pytest.raises(StorageError, match="GLOMERULAB_CACHE_GIB"):
            local_copy("s3://lab/c")
        s3.pipe("lab/a", bytes(1000))
        with pytest.raises(StorageError, match="another process"):
            local_copy("s3://lab/a")
        assert local_path("s3://lab/a").stat().st_size == 1024
        other.communicate()
    assert local_copy("s3://lab/c").exists()
    assert not local_path("s3://lab/a").exists()


def test_processes_that_share_a_small_cache_each_read_what_they_asked_for(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOMERULAB_CACHE_GIB", str(8.5 * KIB))
    s3.pipe({f"lab/{n}": bytes([n]) * 1024 for n in range(20)})
    code = (
        "import random, sys; from glomerulab.runtime.storage import local_copy, release_copies\n"
        "for n in random.Random(sys.argv[1]).choices(range(20), k=30):\n"
        "    assert local_copy(f's3://lab/{n}').read_bytes() == bytes([n]) * 1024\n"
        "    release_copies()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    kept = [path for path in (storage.cache_folder() / "s3" / "lab").iterdir() if path.is_file()]
    assert 1 <= len(kept) <= 8


def test_a_download_that_breaks_leaves_no_part_of_a_file(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.pipe("lab/a", b"whole")
    with monkeypatch.context() as patched:
        patched.setattr(s3, "get", lambda keys, places: Path(places[0]).write_bytes(b"who"))
        with pytest.raises(StorageError, match="changed while it was read"):
            local_copy("s3://lab/a")
    assert not local_path("s3://lab/a").exists()
    assert not list((storage.cache_folder() / "incoming").iterdir())
    assert local_copy("s3://lab/a").read_bytes() == b"whole"


def test_a_folder_is_written_here_and_uploaded_whole(s3: Any) -> None:
    place = begin_output("s3://lab/out")
    assert s3.find("lab") == []
    (place / "crops").mkdir(parents=True)
    (place / "crops" / "1.png").write_bytes(b"1")
    (place / "m.csv").write_bytes(b"m")
    (place / ".extract.lock").write_bytes(b"")
    (place / ".m.partial-1234.csv").write_bytes(b"")
    assert finish_output("s3://lab/out") == 2
    assert s3.find("lab") == ["lab/out/crops/1.png", "lab/out/m.csv"]
    assert not place.exists()


def test_an_output_is_continued_with_what_the_storage_and_a_killed_run_have(s3: Any) -> None:
    s3.pipe({"lab/out/a": b"a", "lab/out/b": b"b"})
    place = begin_output("s3://lab/out")
    (place / "a").write_bytes(b"A")
    (place / "b").unlink()
    place = begin_output("s3://lab/out")  # after a kill
    assert (place / "a").read_bytes() == b"A"
    (place / "c").write_bytes(b"c")
    finish_output("s3://lab/out")
    assert s3.cat(s3.find("lab/out")) == {"lab/out/a": b"A", "lab/out/c": b"c"}
    assert local_copy("s3://lab/out/a").read_bytes() == b"A"


def test_an_output_that_others_changed_meanwhile_is_not_overwritten(s3: Any) -> None:
    s3.pipe("lab/out/a", b"a")
    place = begin_output("s3://lab/out")
    s3.pipe("lab/out/a", b"of others")
    with pytest.raises(StorageError, match="changed since"):
        begin_output("s3://lab/out")
    assert (place / "a").read_bytes() == b"a"


def test_a_storage_that_refuses_or_is_away_is_a_sentence(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    monkeypatch.setattr(storage, "_system", lambda: away)
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        local_copy("s3://lab/a")


def test_without_the_extra_its_name_is_told(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StorageError, match=r"glomerulab\[s3\]"):
        local_copy("s3://lab/a")
