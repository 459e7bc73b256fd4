"""What a change must pass: ``.venv/bin/nox``, or some of it with ``--sessions lint docs``."""

import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nox

# The environment is the one `runs/setup.sh --dev` made: no second one to drift from the lock.
nox.options.default_venv_backend = "none"
UV_RUN = (sys.executable, "-m", "uv", "tool", "run", "--from")
"""Tools of a release, in environments of their own: they are in no lock."""
nox.options.sessions = ["lint", "types", "contracts", "docs", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, mistakes and spelling."""
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(
        sys.executable, "-m", "codespell_lib", "src", "tests", "docs", "benchmarks", "README.md"
    )


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.run(sys.executable, "-m", "mypy")


@nox.session
def contracts(session: nox.Session) -> None:
    """Check who imports whom."""
    session.run(
        sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    session.run(
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html"
    )
    for page in Path("docs/_build/html").rglob("*.html"):
        # Directives of reStructuredText inside Markdown pages are not rendered, and not warned of.
        if "<p>.. " in page.read_text(encoding="utf-8"):
            session.error(f"{page} shows unrendered markup")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the default test suite."""
    session.run(sys.executable, "-m", "pytest", "--numprocesses", "2", *session.posargs)


@nox.session
def sbom(session: nox.Session) -> None:
    """Write what a release consists of as CycloneDX: Python packages and the pages' scripts."""
    path = Path("dist") / "sbom.cdx.json"
    path.parent.mkdir(exist_ok=True)
    session.run(
        *(*UV_RUN, "cyclonedx-bom>=7,<8", "cyclonedx-py", "requirements", "requirements.lock"),
        *("--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(path)),
    )
    content = json.loads(path.read_text(encoding="utf-8"))
    packages = json.loads(Path("package-lock.json").read_text(encoding="utf-8"))["packages"]
    for place, facts in packages.items():
        if place and not facts.get("dev"):
            content["components"].append(_script(place.rpartition("node_modules/")[2], facts))
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    session.log(f"{path}: {len(content['components'])} components")


def _script(name: str, facts: dict[str, str]) -> dict[str, object]:
    """Return an npm package of the lock as a component."""
    kind, _, digest = facts["integrity"].partition("-")
    algorithm = {"sha512": "SHA-512", "sha1": "SHA-1"}[kind]
    purl = f"pkg:npm/{name.replace('@', '%40')}@{facts['version']}"
    return {
        "bom-ref": purl,
        "type": "library",
        "name": name,
        "version": facts["version"],
        "purl": purl,
        "hashes": [{"alg": algorithm, "content": base64.b64decode(digest).hex()}],
    }


@nox.session
def advisories(session: nox.Session) -> None:
    """Check the locked packages against published advisories, where a service can be reached."""
    service = "osv"
    try:
        urllib.request.urlopen("https://api.osv.dev/", timeout=20).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        session.skip(f"NOT CHECKED: no advisory service can be reached ({service}: {error})")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        session.run(
            *(*UV_RUN, "pip-audit>=2.9,<3", "pip-audit", "--requirement", lock),
            *("--disable-pip", "--vulnerability-service", service, "--progress-spinner", "off"),
        )
