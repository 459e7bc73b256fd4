"""The owner's exports: files made when they are asked for, and the check of the record."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from glomerulab.apps.annotation.exports import (
    annotations_table,
    final_manifest,
    write_events,
    write_table,
)
from glomerulab.apps.annotation.store.adjudications import list_outcomes
from glomerulab.apps.annotation.store.audit import (
    iterate_events,
    parse_head,
    read_head,
    verify_store,
)
from glomerulab.apps.annotation.store.readings import list_annotations
from glomerulab.apps.annotation.web.access import CurrentSite, Owner
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.site import Site
from glomerulab.cohort.manifest import write_manifest
from glomerulab.cohort.paper_labels import write_paper_labels

__all__ = ["router"]

router = APIRouter(prefix="/study")

FileName = Literal[
    "labels.json",
    "annotations.csv",
    "history.csv",
    "manifest.csv",
    "manifest_soft.csv",
    "record.jsonl",
]
MEDIA_TYPES = {".json": "application/json", ".csv": "text/csv", ".jsonl": "application/jsonl"}


@router.get("/export")
def export_page(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show what can be had."""
    head = str(read_head(site.store))
    return render_page(request, "export.html.j2", account=owner, study=site.study(), head=head)


@router.get("/export/{name}")
def download(site: CurrentSite, owner: Owner, name: FileName) -> Response:
    """Make a file and give it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](site, owner.login, path)
        content = path.read_bytes()
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(content, media_type=MEDIA_TYPES[path.suffix], headers=headers)


@router.post("/verify")
def verify(
    request: Request,
    site: CurrentSite,
    owner: Owner,  # noqa: ARG001
    head: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Check that the record is as it was written, also against an earlier seal."""
    earlier = parse_head(head.strip()) if head.strip() else None
    found = verify_store(site.store, earlier=earlier)
    return render_page(request, "verified.html.j2", found=found)


def _write_labels(site: Site, login: str, path: Path) -> None:
    outcomes = list_outcomes(site.store, by=login)
    write_paper_labels(final_manifest(outcomes, site.study()), path)


def _write_manifest(site: Site, login: str, path: Path) -> None:
    outcomes = list_outcomes(site.store, by=login)
    made = final_manifest(outcomes, site.study(), soft=path.stem.endswith("_soft"))
    # Paths stay as they are in the study: the file belongs where its images start from.
    write_manifest(replace(made, folder=path.parent), path)


def _write_annotations(site: Site, login: str, path: Path) -> None:
    said = list_annotations(site.store, by=login, every_version=path.stem == "history")
    images = {one.image.image_id: one.image for one in list_outcomes(site.store, by=login)}
    write_table(annotations_table(said, images, site.study().taxonomy.label_ids), path)


def _write_record(site: Site, _login: str, path: Path) -> None:
    write_events(iterate_events(site.store), path)


WRITERS: dict[str, Callable[[Site, str, Path], None]] = {
    "labels.json": _write_labels,
    "annotations.csv": _write_annotations,
    "history.csv": _write_annotations,
    "manifest.csv": _write_manifest,
    "manifest_soft.csv": _write_manifest,
    "record.jsonl": _write_record,
}
