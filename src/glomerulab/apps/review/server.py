"""Run the review of a predictions folder."""

import secrets
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from glomerulab.apps.review.app import create_app
from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.apps.web.server import address_of, listen, run_server
from glomerulab.cases.rules import RuleSet
from glomerulab.i18n.catalogue import Language
from glomerulab.runtime.messages import count_noun

__all__ = ["review"]

HOST = "127.0.0.1"
"""Localhost only: there are no accounts, and a correction carries the name that is typed."""


def review(
    predictions: Path,
    *,
    port: int,
    language: Language,
    echo: Callable[[str], None],
    rule_sets: Sequence[RuleSet] | None = None,
    open_browser: bool = False,
    accept_edits: bool = False,
    slides: Path | None = None,
    structures: Path | None = None,
    references: Path | None = None,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    predictions : Path
        Folder that `glomerulab predict` wrote.
    port : int
        0 for any free one.
    echo : callable
        Called with each line for the terminal.
    rule_sets : sequence of RuleSet, optional
        By default all built-in ones.
    open_browser : bool, default False
        Open the pages in the browser.
    accept_edits : bool, default False
        Review predictions that were changed since they were made; the pages state it.
    slides : Path, optional
        Slides, a folder of them or a slides table: neighbours are shown on the slide itself.
    structures : Path, optional
        Folder that `glomerulab segment` wrote for them, see `build_cases`.
    references : Path, optional
        Folder with a picture of each label, see `read_references`.

    Raises
    ------
    GlomerulabError
        If the folder holds no predictions, `structures` no outlines or `references` no picture, or
        one is damaged.
    OutputError
        If the port is taken.
    """
    session = ReviewSession(
        predictions,
        rule_sets=rule_sets,
        accept_edits=accept_edits,
        slides=slides,
        structures=structures,
        references=references,
    )
    _state, cases = session.cases()  # unreadable predictions fail here, not in the browser
    secret = secrets.token_urlsafe(24)
    app = create_app(session, secret=secret, language=language)
    with closing(listen(HOST, port)) as listener, tempfile.TemporaryDirectory() as made:
        address = f"{address_of(HOST, listener.getsockname()[1])}/{secret}/"
        for line in announce(session, address, n_cases=len(cases)):
            echo(line)
        if open_browser:
            open_browser_at(address, Path(made))
        run_server(app, listener)


def announce(session: ReviewSession, address: str, *, n_cases: int) -> list[str]:
    """Return the lines printed at the start; `address` contains the secret."""
    cases = count_noun(n_cases, "case")
    return [
        f"{cases} of {session.folder} to review (research use only). Stop it with Ctrl+C.",
        "Open this address on this computer; whoever has it can change calls:",
        f"  {address}",
        "Changes are counted at once and kept in overrides.csv.",
        "Earlier reports do not contain them; write those again with `glomerulab report`.",
    ]


def open_browser_at(address: str, folder: Path) -> None:
    """Open an address through a file in `folder` that only this user can read.

    The arguments of the browser's process, which every user can read, do not contain the address.
    """
    page = folder / "review.html"
    page.touch(mode=0o600)
    page.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">'
        f'<a href="{address}">Research use only</a>',
        encoding="utf-8",
    )
    webbrowser.open(page.as_uri())
