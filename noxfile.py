"""What a change must pass: ``.venv/bin/nox``, or some of it with ``--sessions lint docs``."""

import sys
from pathlib import Path

import nox

# The environment is the one `runs/setup.sh --dev` made: no second one to drift from the lock.
nox.options.default_venv_backend = "none"
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
