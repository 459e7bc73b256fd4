"""The server dies in the middle of many people's saves: what it acknowledged is there, once."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from glomerulab.apps.annotation.store.database import open_store
from tests.support.annotation_server import Person, Server
from tests.support.annotation_studies import history, make_study
from tests.support.annotation_web import page_labels, write_images

pytestmark = pytest.mark.slow

N_PEOPLE = 10
N_IMAGES = 100
LOGINS = tuple(f"reader{number}" for number in range(N_PEOPLE))


class Reader:
    """Label the queue as the page does: the same key again until it is acknowledged."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.acknowledged: list[tuple[int, str]] = []
        self.n_tries = 0

    def label_all(self) -> None:
        for place in range(1, N_IMAGES + 1):
            self._label(place)
        self.person.http.close()

    def _label(self, place: int) -> None:
        item = self._until_it_answers(lambda: self.person.item(place))
        label = ("mspgn", "fsg", "cgn")[place % 3]
        body = {
            "assignment_id": item["assignment_id"],
            "labels": page_labels(label),
            "seconds": 1.0,
            "expected_version": item["version"],
            "save_key": str(uuid.uuid4()),
        }

        def save() -> None:
            self.n_tries += 1
            self.person.http.post("/api/annotations", json=body).raise_for_status()

        self._until_it_answers(save)
        self.acknowledged.append((item["assignment_id"], label))

    def _until_it_answers(self, ask):
        while True:
            try:
                return ask()
            except httpx.TransportError:
                time.sleep(0.2)


def test_every_acknowledged_save_is_there_and_none_twice(tmp_path):
    with open_store(tmp_path / "annotations.db", create=True) as store:
        make_study(
            store,
            manifest=write_images(tmp_path, N_IMAGES, side=32),
            annotators=LOGINS,
            n_readers=N_PEOPLE,
        )
    server = Server(tmp_path / "annotations.db")
    readers = {login: Reader(Person(server.address, login)) for login in LOGINS}

    def n_acknowledged() -> int:
        return sum(len(reader.acknowledged) for reader in readers.values())

    with ThreadPoolExecutor(N_PEOPLE) as pool:
        work = [pool.submit(reader.label_all) for reader in readers.values()]
        for share in (0.3, 0.6):  # twice, somewhere in the middle
            while n_acknowledged() < share * N_PEOPLE * N_IMAGES:
                time.sleep(0.005)
            server.kill()
            assert n_acknowledged() < N_PEOPLE * N_IMAGES
            server.start()
    for one in work:
        one.result()
    server.stop()
    assert n_acknowledged() == N_PEOPLE * N_IMAGES
    with open_store(tmp_path / "annotations.db") as store:
        for login, reader in readers.items():
            for assignment_id, label in reader.acknowledged:
                (kept,) = history(store, login, assignment_id)  # exactly one version
                assert [one for one, value in kept.content.labels.items() if value] == [label]
    assert (
        sum(reader.n_tries for reader in readers.values()) > N_PEOPLE * N_IMAGES
    )  # some were sent again
