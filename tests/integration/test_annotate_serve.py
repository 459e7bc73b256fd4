import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.cli.main import app
from glomerulab.cohort.import_folder import read_images
from glomerulab.cohort.manifest import write_manifest
from glomerulab.errors import GlomerulabError
from tests.support.annotation_server import Server
from tests.support.annotation_web import write_images


def _run(*arguments: str) -> GlomerulabError:
    with pytest.raises(GlomerulabError) as caught:
        CliRunner().invoke(
            app, ["annotate", "serve", *arguments], catch_exceptions=False, standalone_mode=False
        )
    return caught.value


def test_a_missing_study_is_not_created_by_accident(tmp_path):
    _run("--db", str(tmp_path / "typo.db"))
    assert list(tmp_path.iterdir()) == []


HEAVY = """
import sys
from glomerulab.cli.main import app
from glomerulab.errors import GlomerulabError
try:
    app(sys.argv[1:], standalone_mode=False)
except GlomerulabError as error:
    print(error, sorted({"pandas", "sqlalchemy", "fastapi", "scipy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--db", "a.db", "--manifest", "none.csv"),
        ("serve", "--db", "a.db", "--slides", "none.csv"),
        ("create", "a.db", "--manifest", "none.csv"),
        ("import", "a.db", "--regions", "none.csv", "--annotator", "anna"),
    ],
)
def test_a_missing_file_is_told_before_anything_heavy_is_loaded(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, "annotate", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.startswith("none.csv: there is no such file")
    assert done.stdout.rstrip().endswith("[]")
    assert list(tmp_path.iterdir()) == []


def test_a_study_begins_with_a_folder_of_images(tmp_path):
    folder = tmp_path / "pictures"
    write_images(folder, 3)
    (folder / "images" / "glom_002.png").rename(folder / "beside.png")
    (tmp_path / "password").write_text("a long enough password\n")
    database = tmp_path / "study.db"

    def run(*arguments):
        done = CliRunner().invoke(app, ["annotate", *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    created = run(
        "create", database, "--manifest", folder, "--password-file", tmp_path / "password"
    )
    assert "of 3 images" in created
    assert "0 new images" in run("import", database, "--images", folder)
    (folder / "images" / "glom_001.png").rename(folder / "later.png")
    assert "1 new images" in run("import", database, "--images", folder)
    with open_store(database) as store:
        found = [one.image for one in list_image_readings(store, by="owner")]
    assert [one.image_id for one in found] == [
        "beside",
        "images/glom_000",
        "images/glom_001",
        "later",
    ]
    assert {(one.patient_id, one.stain, one.mpp) for one in found} == {(None, None, None)}


def test_a_folder_with_a_manifest_is_its_manifest(tmp_path):
    write_manifest(write_images(tmp_path, 2), tmp_path / "manifest.csv")
    images = read_images(tmp_path)
    assert images.table["patient_id"].tolist() == ["p0", "p0"]


def test_slides_that_are_not_there_are_named(tmp_path):
    assert "there is no such" in str(
        _run("--db", str(tmp_path / "a.db"), "--slides", str(tmp_path / "none"))
    )


def test_the_command_prints_an_address_that_responds(tmp_path):
    manifest = write_images(tmp_path, 2)
    write_manifest(manifest, tmp_path / "manifest.csv")
    server = Server(tmp_path / "new.db", "--manifest", tmp_path)
    try:
        output = server.output()
        assert f"Annotation program at {server.address} (research use only)" in output
        setup = next(line.strip() for line in output.splitlines() if "/setup?token=" in line)
        assert "New study" in httpx.get(setup).text
        assert httpx.get(f"{server.address}/setup?token=guess").status_code == 403
    finally:
        server.stop()
    assert server.process.returncode in {0, 130, -2}
