import httpx
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
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


def test_slides_that_are_not_there_are_named(tmp_path):
    assert "there is no such" in str(
        _run("--db", str(tmp_path / "a.db"), "--slides", str(tmp_path / "none"))
    )


def test_the_command_prints_an_address_that_responds(tmp_path):
    manifest = write_images(tmp_path, 2)
    write_manifest(manifest, tmp_path / "manifest.csv")
    server = Server(tmp_path / "new.db", "--manifest", str(tmp_path / "manifest.csv"))
    try:
        output = server.output()
        assert f"Annotation program at {server.address} (research use only)" in output
        setup = next(line.strip() for line in output.splitlines() if "/setup?token=" in line)
        assert "New study" in httpx.get(setup).text
        assert httpx.get(f"{server.address}/setup?token=guess").status_code == 403
    finally:
        server.stop()
    assert server.process.returncode in {0, 130, -2}
