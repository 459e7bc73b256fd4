"""A small study with images, accounts and a running application, for tests of the web program."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from glomerulab.apps.annotation.store.accounts import open_session
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.web.access import SESSION_COOKIE
from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.taxonomy import load_taxonomy
from tests.support.annotation_studies import PASSWORD, make_study

HOSTS = frozenset({"testserver", "127.0.0.1", "localhost"})


def write_images(folder: Path, n_images: int, *, side: int = 96) -> Manifest:
    """Write images of different uniform colours and return their manifest (synthetic)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    rows = []
    for number in range(n_images):
        colour = tuple(int(part) for part in rng.integers(60, 240, 3))
        path = folder / "images" / f"glom_{number:03d}.png"
        Image.new("RGB", (side, side), colour).save(path)
        rows.append(
            {
                "image_id": f"glom_{number:03d}",
                "image_path": f"images/{path.name}",
                "patient_id": f"p{number // 2}",
                "slide_id": f"s{number // 2}",
                "stain": "PAS",
            }
        )
    return manifest_from_rows(pd.DataFrame(rows), folder=folder, taxonomy=load_taxonomy("paper"))


@dataclass
class Web:
    """A study and its application."""

    folder: Path
    store: Store
    site: Site
    app: FastAPI

    def client(self, login: str | None = None) -> "Browser":
        """Return a client, logged in if a login is given."""
        client = Browser(self.app, follow_redirects=False)
        if login is not None:
            self.begin_session(client, login)
        return client

    def begin_session(self, client: "Browser", login: str) -> None:
        """Give a client a session without the password check, which takes long by design."""
        token = open_session(self.store, login=login, lifetime=self.site.settings.session_lifetime)
        client.cookies.set(SESSION_COOKIE, self.site.session_signer.sign(token).decode())
        client.token = self.site.csrf_signer.get_signature(token).decode()


class Browser(TestClient):
    """A client that brings the write token as the pages do."""

    token: str = ""

    def log_in(self, login: str) -> None:
        """Log in as a page does."""
        self.token = self.get("/api/entry").json()["csrf_token"]
        body = {"login": login, "password": PASSWORD}
        answer = self.write("/api/session", json=body)
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["csrf_token"]

    def write(self, path: str, *, headers: dict[str, str] | None = None, **content):
        """Post with the token of this session."""
        return self.post(path, headers={"X-CSRF-Token": self.token} | (headers or {}), **content)

    def save(self, item: dict, **changes):
        """Save an item as the page does."""
        body = {
            "assignment_id": item["assignment_id"],
            "labels": page_labels("mspgn"),
            "expected_version": item["version"],
            "save_key": str(uuid.uuid4()),
            "seconds": 1.5,
            "image_mark": item["image_mark"],
        } | changes
        return self.write("/api/annotations", json=body)


def page_labels(*present: str) -> dict[str, int]:
    """Return the labels as the page sends them: 1 or 0 for every label of the taxonomy."""
    return {one: int(one in present) for one in load_taxonomy("paper").label_ids}


def open_web(
    folder: Path, *, slides: Path | None = None, n_images: int = 6, **design: object
) -> Web:
    """Make a study of uniform images with annotators anna and bo, and its application."""
    store = open_store(folder / "annotations.db", create=True)
    make_study(store, manifest=write_images(folder, n_images), **design)
    site = Site(store, SlideCache(slides), SiteSettings(hosts=HOSTS))
    return Web(folder, store, site, create_app(site))
