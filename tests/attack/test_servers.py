"""Clients that would keep a server from answering the others: many, slow, inventive, half dead."""

import io
import json
import resource
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from argon2 import PasswordHasher
from PIL import Image

from glomerulab.apps.annotation.store import accounts
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.pyramid import write_pyramid
from tests.support.annotation_server import Person, Server
from tests.support.annotation_studies import OWNER, make_study
from tests.support.annotation_web import HOSTS, Web, page_labels, write_images
from tests.support.cases import picture
from tests.support.postgres import POSTGRES_URL, WITHOUT_POSTGRES, empty_schema
from tests.support.served_models import ServedProcess, write_slide

pytestmark = pytest.mark.slow

MIB = 2**20
MAX_GROWTH = 20 * MIB
SLIDE = hashed_name("slide")


@pytest.fixture(autouse=True, scope="module")
def many_sockets():
    """Let this process hold as many sockets as the attack needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory) -> Iterator[ServedProcess]:
    """``serve`` with slides, without keys."""
    folder = tmp_path_factory.mktemp("served")
    write_slide(folder / "slides")
    options = ("--model", trained, "--slides", folder / "slides", "--jobs", folder / "jobs")
    server = ServedProcess(folder, *options)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def annotating(tmp_path_factory) -> Iterator[Server]:
    """``annotate serve`` with a slide."""
    folder = tmp_path_factory.mktemp("annotating")
    with open_store(folder / "annotations.db", create=True) as store:
        make_study(store, manifest=write_images(folder, 6))
    pixels = np.full((600, 800, 3), 230, dtype=np.uint8)
    write_pyramid(pixels, folder / "slide.tiff", mpp=0.5)
    server = Server(folder / "annotations.db", "--slides", folder / "slide.tiff")
    yield server
    server.stop()


def resident(server) -> int:
    """Return the memory of a server's process, bytes."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(np.random.default_rng(seed), "normal")).save(stream, "PNG")
    return stream.getvalue()


def test_8_20_and_32_clients_without_an_error_and_in_flat_memory(served: ServedProcess) -> None:
    crops = [png(seed) for seed in range(8)]
    address = str(served.http.base_url)

    def ask(client: int, n_requests: int) -> list[int]:
        with httpx.Client(base_url=address, timeout=60) as http:
            return [
                http.post(
                    "/v1/crops?stain=PAS&mpp=0.5", content=crops[(client + number) % len(crops)]
                ).status_code
                for number in range(n_requests)
            ]

    held = []
    for n_clients in (32, 8, 20, 32):  # the first warms up
        with ThreadPoolExecutor(n_clients) as pool:
            given = pool.map(ask, range(n_clients), [160 // n_clients] * n_clients)
            assert {status for one in given for status in one} == {200}
        held.append(resident(served))
    assert max(held) - held[0] < MAX_GROWTH, [one // MIB for one in held]


SLOW = {
    "nothing": b"",
    "half of the headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "a body that does not come": (
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\nabc"
    ),
    "headers that drip": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ",
}
N_SLOW = 520


@contextmanager
def slow_connections(address: str, content: bytes, *, n_addresses: int) -> Iterator[None]:
    """Hold connections that never ask anything, from one or several addresses, while some drip."""
    host, port = httpx.URL(address).host, httpx.URL(address).port
    held = []
    ends = threading.Event()
    for number in range(N_SLOW):
        source = (f"127.0.0.{2 + number % n_addresses}", 0)
        one = socket.create_connection((host, port), 10, source_address=source)
        one.sendall(content)
        held.append(one)

    def drip() -> None:
        while not ends.wait(0.5):
            for one in held:
                try:
                    one.send(b"x", socket.MSG_DONTWAIT)
                except OSError:
                    continue

    dripping = threading.Thread(target=drip)
    if content.endswith(b": "):
        dripping.start()
    try:
        yield
    finally:
        ends.set()
        if dripping.ident is not None:
            dripping.join()
        for one in held:
            one.close()


@pytest.mark.parametrize("n_addresses", [1, 60])
@pytest.mark.parametrize("content", SLOW.values(), ids=SLOW)
def test_520_connections_that_wait_shut_nobody_out(
    annotating: Server, served: ServedProcess, content: bytes, n_addresses: int
) -> None:
    for address, path in ((annotating.address, "/login"), (str(served.http.base_url), "/ready")):
        seconds = []
        with slow_connections(address, content, n_addresses=n_addresses):
            for _ in range(3):
                start = time.monotonic()
                answer = httpx.get(f"{address.rstrip('/')}{path}", timeout=10)
                seconds.append(time.monotonic() - start)
                assert answer.status_code == 200
        assert statistics.median(seconds) < 5


def test_memory_stays_through_20_000_invented_requests(
    annotating: Server, served: ServedProcess
) -> None:
    rng = np.random.default_rng(0)

    def invent(address: str, n_requests: int) -> int:
        """Send requests over connections that stay open; return how many were answered."""
        url, n_answers, length = httpx.URL(address), 0, 50
        for start in range(0, n_requests, length):
            texts = []
            for number in range(start, start + length):
                name = rng.bytes(8).hex().upper()
                method = name if number % 2 else ("GET", "POST", "TRACE")[number % 3]
                target = f"/{name}/{number}?{name}=1"
                texts.append(f"{method} {target} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n\r\n")
            with socket.create_connection((url.host, url.port), 30) as one:
                for text in texts:
                    one.sendall(text.encode())
                    head = one.recv(65536)
                    assert head.startswith(b"HTTP/1.1 4"), head[:200]
                    n_answers += 1
                    while b"}" not in head and b"</html>" not in head:
                        head = one.recv(65536)
        return n_answers

    for server, address, n_requests in (
        (served, str(served.http.base_url), 14_000),
        (annotating, annotating.address, 4_000),
    ):
        invent(address, 1000)
        before = resident(server)
        assert invent(address, n_requests) == n_requests
        assert resident(server) - before < MAX_GROWTH


LONG = "n" * 300


def test_names_longer_than_a_file_system_takes_are_refused(
    annotating: Server, served: ServedProcess
) -> None:
    anna, owner = Person(annotating.address, "anna").http, Person(annotating.address, OWNER).http
    item = anna.get("/api/items/1").json()
    save = {
        "assignment_id": item["assignment_id"],
        "labels": page_labels("cgn") | {LONG: 1},
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
        "seconds": 1.0,
    }
    slides = [{"path": "s1.tif", "stain": "PAS"}]
    job = {"slides": slides, "regions": "s1.geojson"}
    http = served.http
    answers = [
        anna.post("/api/annotations", json=save),
        anna.get(f"/slides/{LONG}"),
        anna.get(f"/static/{LONG}"),
        owner.get("/study/image", params={"image": LONG}),
        owner.get("/study/disagreement", params={"image": LONG}),
        owner.get(f"/study/export/{LONG}.csv"),
        owner.post("/study/people", data={"name": "N", "login": LONG, "role": "owner"}),
        owner.post(f"/study/people/{LONG}/password"),
        owner.post("/study/third-reader", data={"login": LONG}),
        http.get(f"/v1/jobs/{LONG}"),
        http.delete(f"/v1/jobs/{LONG}"),
        http.post(f"/v1/jobs/{LONG}/cancel"),
        http.get(f"/v1/jobs/{'0' * 16}/result/{LONG}"),
        http.post("/v1/jobs", json=job | {"slides": [{"path": f"{LONG}.tif", "stain": "PAS"}]}),
        http.post("/v1/jobs", json=job | {"regions": f"{LONG}.geojson"}),
        http.post("/v1/jobs", json=job | {"patient": LONG}),
        http.post("/v1/crops", params={"stain": LONG}, content=png(0)),
        http.get(f"/{LONG}"),
    ]
    statuses = {f"{one.request.method} {one.url.path[:40]}": one.status_code for one in answers}
    assert all(400 <= status < 500 for status in statuses.values()), statuses
    # The name of an upload is not used.
    file = {"file": (f"{LONG}.geojson", json.dumps({"type": "FeatureCollection", "features": []}))}
    assert anna.post(f"/slides/{SLIDE}/import", files=file).status_code == 422
    anna.close()
    owner.close()


SAME_LOGIN = (
    " bo",
    "\u3000bo",
    "bo\u00a0",
    "BO",
    "\uff42\uff4f",
    "b\u200bo",
    "\ufeffbo",
    "b\u00ado",
)


def test_no_spelling_of_a_login_gets_more_tries(annotating: Server) -> None:
    with httpx.Client(base_url=annotating.address, timeout=60) as http:
        http.headers["X-CSRF-Token"] = http.get("/api/entry").json()["csrf_token"]

        def try_(login: str) -> int:
            body = {"login": login, "password": "a wrong password"}
            return http.post("/api/session", json=body).status_code

        spellings = [*SAME_LOGIN, *SAME_LOGIN]
        assert [try_(login) for login in spellings[:5]] == [403] * 5
        assert {try_(login) for login in spellings} == {429}


@pytest.fixture(params=["sqlite", "postgresql"])
def web(request, tmp_path: Path, make_slide, monkeypatch) -> Iterator[Web]:
    """A study in this process, in each kind of database."""
    monkeypatch.setattr(
        accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    )
    if request.param == "sqlite":
        yield from _opened(tmp_path / "annotations.db", tmp_path, make_slide())
        return
    if not POSTGRES_URL:
        pytest.skip(WITHOUT_POSTGRES)
    with empty_schema() as url:
        yield from _opened(url, tmp_path, make_slide())


def _opened(place: Path | str, folder: Path, slide: Path) -> Iterator[Web]:
    with open_store(place, create=True) as store:
        make_study(store, manifest=write_images(folder, 6))
        site = Site(store, SlideCache(slide), SiteSettings(hosts=HOSTS))
        yield Web(folder, store, site, create_app(site))


VALID = {
    "next": "/",
    "language": "en",
    "token": "t",
    "head": "",
    "note": "",
    "method": "majority",
    "login": "bo",
    "password": "x" * 12,
    "old": "x" * 12,
    "new": "y" * 12,
    "role": "annotator",
    "name": "N",
    "study": "S",
    "n_readers": 2,
    "repeat_percent": 0,
    "seed": 1,
    "active": True,
    "labels": page_labels("cgn"),
    "assignment_id": 1,
    "expected_version": 0,
    "seconds": 1.0,
    "image": "glom_000",
    "label": ["cgn"],
    "key": SLIDE,
    "place": 1,
    "level": 1,
    "row": 0,
    "column": 0,
    "x": 1,
    "y": 1,
    "width": 9,
    "height": 9,
}


def test_a_nul_in_any_text_is_refused(web: Web) -> None:
    document, wrong, n_sent = web.app.openapi(), {}, 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for part in _texts(document, operation):
                client = web.client("anna" if path.startswith("/api/annot") else OWNER)
                address, content = _request(document, path, operation, part)
                headers = {"X-CSRF-Token": client.token}
                status = client.request(method, address, headers=headers, **content).status_code
                n_sent += 1
                if not 400 <= status < 500:
                    wrong[f"{method} {path} {part}"] = status
    assert n_sent > 40
    assert not wrong


def _fields(document: dict, operation: dict) -> tuple[str, dict]:
    """Return the content type and the fields of the body."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return kind, schema["properties"]
    return "", {}


def _texts(document: dict, operation: dict) -> list[str]:
    """Return the names of the texts of an operation."""
    given = {one["name"]: one["schema"] for one in operation.get("parameters", [])}
    given |= _fields(document, operation)[1]
    return [
        name
        for name, schema in given.items()
        if "string"
        in np.hstack([one.get("type", []) for one in (schema, *schema.get("anyOf", []))])
        or name in {"labels", "label"}
    ]


def _request(document: dict, path: str, operation: dict, part: str) -> tuple[str, dict]:
    """Return the address and the content of a request that is valid except for one text."""
    bad = {"labels": {"c\0gn": 1}, "label": ["c\0gn"]}.get(part, f"{VALID.get(part)}\0")
    kind, fields = _fields(document, operation)
    fresh = {"save_key": str(uuid.uuid4()), "region_id": str(uuid.uuid4())}
    values = {**VALID, **fresh, part: bad}
    names = {where: [] for where in ("path", "query")}
    for one in operation.get("parameters", []):
        names[one["in"]].append(one["name"])
    quoted = {name: str(values.get(name)).replace("\0", "%00") for name in names["path"]}
    content = {"params": {name: values[name] for name in names["query"] if name in values}}
    body = {name: values[name] for name in fields if name in values}
    if kind == "application/json":
        content["json"] = body
    elif kind.startswith("multipart"):
        content["files"] = {"file": ("a\0.geojson", b'{"type": "\0"}')}
    elif kind:
        content["data"] = body
    return path.format(**quoted), content


N_BOXES = 4000


def boxes(n_boxes: int) -> bytes:
    """Return a region file of more than a megabyte."""
    features = []
    for number in range(n_boxes):
        x, y = 10 * (number % 80), 10 * (number // 80)
        ring = [[x + dx, y + dy] for dx, dy in ((1, 1), (8, 1), (9, 5), (8, 9), (1, 9), (1, 1))]
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.UUID(int=number + 1)),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "note": "x" * 600},
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def test_an_import_killed_with_the_server_shows_nothing_and_is_continued(tmp_path: Path) -> None:
    db, content = tmp_path / "annotations.db", boxes(N_BOXES)
    assert len(content) > 10**6  # imported by a process of its own
    with open_store(db, create=True) as store:
        make_study(store, manifest=write_images(tmp_path, 2))
    write_pyramid(np.full((600, 900, 3), 230, np.uint8), tmp_path / "slide.tiff", mpp=0.5)
    server = Server(db, "--slides", tmp_path / "slide.tiff")

    def n_boxes(person: Person) -> int:
        return len(person.http.get(f"/api/slides/{SLIDE}/regions").json())

    def import_() -> httpx.Response:
        files = {"file": ("boxes.geojson", content)}
        return person.http.post(f"/slides/{SLIDE}/import", files=files, timeout=120)

    def n_saved() -> int:
        return person.http.get("/api/import").json()["n_done"]

    for least in (1, N_BOXES // 4):
        person = Person(server.address, "anna")
        with ThreadPoolExecutor(1) as pool:
            importing = pool.submit(import_)
            while n_saved() < least:
                assert not importing.done(), importing.result().text
                time.sleep(0.01)
            server.kill()
            assert isinstance(importing.exception(), httpx.TransportError)
        person.http.close()
        server.start()
        with closing(Person(server.address, "anna").http) as http:
            assert http.get(f"/api/slides/{SLIDE}/regions").json() == []
    person = Person(server.address, "anna")
    for _ in range(2):
        assert import_().status_code == 303
        assert n_boxes(person) == N_BOXES
    person.http.close()
    server.stop()
    with open_store(db) as store:
        drawn = list_regions(store, login=OWNER)
    assert len({one.outline for one in drawn}) == len(drawn) == N_BOXES
