"""The annotation program in a process of its own, and its clients."""

from pathlib import Path

import httpx

from tests.support.annotation_studies import PASSWORD
from tests.support.server_process import ServerProcess, free_port


class Server(ServerProcess):
    """``glomerulab annotate serve`` on a free port."""

    def __init__(self, db: Path, *options: object) -> None:
        port = free_port()
        self.db = db
        self.address = f"http://127.0.0.1:{port}"
        super().__init__(
            *("annotate", "serve", "--db", db, "--port", port), *options, log=db.with_suffix(".log")
        )

    def is_ready(self) -> bool:
        """Whether it responds."""
        try:
            httpx.get(f"{self.address}/login", timeout=2)
        except httpx.TransportError:
            return False
        return True


class Person:
    """A user of the HTTP interface."""

    def __init__(self, address: str, login: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=30)
        self.http.headers["X-CSRF-Token"] = self.http.get("/api/entry").json()["csrf_token"]
        answer = self.http.post("/api/session", json={"login": login, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]

    def item(self, place: int) -> dict:
        """Return the item at a position of the annotator's queue."""
        return self.http.get(f"/api/items/{place}").raise_for_status().json()
