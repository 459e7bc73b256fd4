"""The pages of the annotation program in Chromium: sessions, what is shown, what was saved."""

from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.database import open_store
from tests.conftest import ROOT
from tests.support.annotation_studies import PASSWORD, history

LABELS = ("normal", "mspgn", "fsg", "cgn")
AXE = ROOT / "build" / "dev-assets" / "axe.min.js"
HARMLESS = ("GL Driver Message", "Failed to load resource", "Response Status Error Code 422")


class Sessions:
    """Pages in sessions of their own, and what went wrong in any of them."""

    def __init__(self, browser, server):
        self._browser, self._server = browser, server
        self._contexts, self._problems = [], []

    def open(self, login, *, width=1280, height=800, touch=False, refused=None, locale="en-GB"):
        """Open a page in a new session, in which the network refuses an address."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, has_touch=touch, locale=locale
        )
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self._problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._problems.append(str(error)))
        page.on("request", lambda one: self._note_foreign(one.url))
        if refused:
            page.route(refused, lambda route: route.abort())
        page.goto(f"{self._server.address}/login")
        log_in(page, login)
        return page

    def close(self):
        """Close every session."""
        for context in self._contexts:
            context.close()

    def serious_problems(self):
        """Return errors of the browser console, and requests to other servers."""
        return [
            one
            for one in self._problems
            if one.startswith(("error", "http", "TypeError", "ReferenceError", "Error"))
            and not any(text in one for text in HARMLESS)
        ]

    def _note_foreign(self, url):
        if not url.startswith((self._server.address, "data:", "blob:")):
            self._problems.append(url)


def log_in(page, login):
    page.wait_for_selector("#login:focus")  # focused without a click
    page.keyboard.type(login)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)


def shown(page, place):
    page.wait_for_selector(f'#viewer[data-place="{place}"]')


def all_saved(page):
    # Not wait_for_function: the pages' policy forbids the browser to compile a string.
    page.wait_for_selector("#save-state:text-is('All saved')")


def label(page, place, keys):
    shown(page, place)
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")


def flags(keys):
    return {label: int(str(number) in keys) for number, label in enumerate(LABELS, start=1)}


def stored(server, login):
    """Return the latest annotation of every item by its position, from the database."""
    with open_store(server.db) as store:
        items = list_items(store, login)
        return {
            item.position: (
                versions[-1] if (versions := history(store, login, item.assignment_id)) else None
            )
            for item in items
        }


def drag(page, area, start, end):
    x, y = area["x"], area["y"]
    page.mouse.move(x + start[0], y + start[1])
    page.mouse.down()
    page.mouse.move(x + end[0] - 5, y + end[1] - 5, steps=6)
    page.mouse.move(x + end[0], y + end[1])
    page.mouse.up()


def violations(page):
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
