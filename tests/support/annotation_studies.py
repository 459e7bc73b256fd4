"""Small labelling studies to test with: accounts, images without pixels, queues."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd

from glomerulab.apps.annotation.records import (
    Adjudication,
    Annotation,
    AnnotationContent,
    Image,
    ImageReadings,
    QueueItem,
    StudySettings,
)
from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.annotations import (
    item_at,
    list_annotations,
    list_items,
    save_annotation,
)
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.study import create_study
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.taxonomy import load_taxonomy

OWNER = "owner"
PASSWORD = "a long enough password"
NORMAL = {"normal": 1, "mspgn": 0, "fsg": 0, "cgn": 0}
SCLEROSIS = {"normal": 0, "mspgn": 0, "fsg": 1, "cgn": 0}
CRESCENT = {"normal": 0, "mspgn": 0, "fsg": 0, "cgn": 1}


def image_manifest(n_images: int, *, folder: Path = Path("/images")) -> Manifest:
    """Images `g000`, `g001`, ... of patients with three images each; no file is made."""
    rows = pd.DataFrame(
        {
            "image_id": [f"g{number:03d}" for number in range(n_images)],
            "image_path": [f"crops/g{number:03d}.png" for number in range(n_images)],
            "patient_id": [f"p{number // 3:02d}" for number in range(n_images)],
            "stain": ["HE" if number % 2 else "PAS" for number in range(n_images)],
            "mpp": [0.25] * n_images,
        }
    )
    return manifest_from_rows(rows, folder=folder, taxonomy=load_taxonomy("paper"))


def make_study(
    store: Store,
    *,
    n_images: int = 6,
    annotators: tuple[str, ...] = ("anna", "bo"),
    manifest: Manifest | None = None,
    distributed: bool = True,
    **settings: object,
) -> None:
    """Begin a study with an owner and annotators, and fill their queues."""
    add_account(store, OWNER, role="owner", by=None)
    chosen = {"name": "test study", "repeat_share": 0.0, **settings}
    create_study(
        store,
        manifest or image_manifest(n_images),
        owner=OWNER,
        settings=StudySettings(**chosen),
    )
    for login in annotators:
        add_account(store, login)
    if distributed:
        distribute(store, by=OWNER)


def add_account(
    store: Store, login: str, *, role: str = "annotator", by: str | None = OWNER
) -> None:
    create_account(store, login=login, name=login.title(), role=role, password=PASSWORD, by=by)


def find_item(store: Store, login: str, assignment_id: int) -> QueueItem:
    """Return an item of a queue by its id."""
    position = {one.assignment_id: one.position for one in list_items(store, login)}
    return item_at(store, login, position[assignment_id])


def next_item(store: Store, login: str) -> QueueItem | None:
    """Return the first open item of a queue."""
    open_items = [one.position for one in list_items(store, login) if one.state == "open"]
    return item_at(store, login, open_items[0]) if open_items else None


def history(store: Store, login: str, assignment_id: int) -> list[Annotation]:
    """Return every version of an annotation, oldest first."""
    saved = list_annotations(store, by=OWNER, every_version=True)
    return [one for one in saved if (one.login, one.assignment_id) == (login, assignment_id)]


def save(
    store: Store,
    login: str,
    image_id: str,
    labels: dict[str, int | None] | None = None,
    *,
    seconds: float = 2.0,
    which: int = 0,
    image_sha256: str | None = None,
    **content: object,
) -> Annotation:
    """Save an annotation of an image (`which` of its readings by this annotator)."""
    items = [item for item in list_items(store, login) if item.image_id == image_id]
    item = find_item(store, login, items[which].assignment_id)
    return save_annotation(
        store,
        login=login,
        assignment_id=item.assignment_id,
        content=AnnotationContent(labels or {}, **content),
        expected_version=item.version,
        save_key=str(uuid4()),
        seconds=seconds,
        image_sha256=image_sha256,
    ).annotation


def image_readings(
    readings: list[dict[str, int | None]],
    *,
    settled: dict[str, int | None] | None = None,
    based_on: tuple[int, ...] | None = None,
    image: Image | None = None,
) -> ImageReadings:
    """Return an image with readings, entries 1, 2, ... of the ledger, and perhaps a consensus."""
    image = image or Image("g", Path("/images/g.png"))
    now = datetime(2026, 1, 2, tzinfo=UTC)
    annotations = tuple(
        Annotation(
            sequence=number,
            assignment_id=number,
            image_id=image.image_id,
            login=f"reader{number}",
            purpose="first",
            version=1,
            content=AnnotationContent(labels),
            seconds=1.0,
            saved_at=now,
            image_sha256=None,
            model_shown=False,
            others_shown=False,
            source="web",
        )
        for number, labels in enumerate(readings, start=1)
    )
    sequences = tuple(annotation.sequence for annotation in annotations)
    adjudication = settled and Adjudication(
        99, image.image_id, 1, settled, "consensus", OWNER, "", based_on or sequences, now
    )
    return ImageReadings(image, "g.png", {}, annotations, adjudication)
