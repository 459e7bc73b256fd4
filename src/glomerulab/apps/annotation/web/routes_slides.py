"""Slides: the list, the deep-zoom page, its tiles and boxes."""

import tempfile
from pathlib import Path as FilePath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, UploadFile
from starlette.responses import RedirectResponse, Response

from glomerulab.apps.annotation.records import Account, DrawnRegion
from glomerulab.apps.annotation.store.regions import list_regions, save_region
from glomerulab.apps.annotation.web.access import CurrentAccount, CurrentSite, Owner, csrf_token
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.region_sync import export_regions, import_regions, queue_boxes
from glomerulab.apps.annotation.web.schemas import RegionBody, region_json
from glomerulab.apps.web.security import content_policy
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.tiles import TILE_SIZE

__all__ = ["router"]

router = APIRouter()

Key = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
"""Of `hashed_name`."""
TileNumber = Annotated[int, Path(ge=0, le=1_000_000)]
FOR_AN_HOUR = {"Cache-Control": "private, max-age=3600"}


@router.get("/slides")
def slides_page(request: Request, site: CurrentSite, account: CurrentAccount) -> Response:
    """List the slides."""
    slides = [(hashed_name(entry.slide_id), entry) for entry in site.shelf.entries()]
    return render_page(
        request, "slides.html.j2", account=account, study=site.study(), slides=slides
    )


@router.get("/slides/{key}")
def slide_page(
    request: Request,
    site: CurrentSite,
    account: CurrentAccount,
    *,
    key: Key,
    queued: int | None = None,
    imported: int | None = None,
) -> Response:
    """Show one slide to draw boxes on."""
    entry, pyramid = site.shelf.entry(key), site.shelf.pyramid(key)
    width, height = pyramid.slide.dimensions
    settings = {
        "login": account.login,
        "csrf": csrf_token(request),
        "key": key,
        "width": width,
        "height": height,
        "tile_size": TILE_SIZE,
        "overlap": pyramid.overlap,
        "min_level": pyramid.min_level,
        "max_level": pyramid.max_level,
    }
    page = render_page(
        request,
        "slide.html.j2",
        account=account,
        study=site.study(),
        entry_=entry,
        key=key,
        settings=settings,
        queued=queued,
        imported=imported,
    )
    page.headers["Content-Security-Policy"] = content_policy(with_boxes=True)
    return page


@router.get("/slides/{key}/thumbnail.jpg")
def thumbnail(site: CurrentSite, account: CurrentAccount, key: Key) -> Response:  # noqa: ARG001
    """Give a small picture of the tissue."""
    return Response(site.shelf.thumbnail(key), media_type="image/jpeg", headers=FOR_AN_HOUR)


@router.get("/slides/{key}/tiles/{level}/{column}_{row}.jpg")
def tile(
    site: CurrentSite,
    account: CurrentAccount,  # noqa: ARG001
    *,
    key: Key,
    level: TileNumber,
    column: TileNumber,
    row: TileNumber,
) -> Response:
    """Give one tile."""
    content = site.shelf.tile(key, level, column, row)
    return Response(content, media_type="image/jpeg", headers=FOR_AN_HOUR)


@router.get("/api/slides/{key}/regions")
def boxes(site: CurrentSite, account: CurrentAccount, key: Key) -> list[dict[str, object]]:
    """List the boxes that the account may see."""
    entry = site.shelf.entry(key)
    drawn = list_regions(site.store, login=account.login, slide_id=entry.slide_id)
    return [region_json(one, may_edit=_may_edit(one, account)) for one in drawn]


@router.post("/api/slides/{key}/regions")
def save_box(
    site: CurrentSite, account: CurrentAccount, key: Key, body: RegionBody
) -> dict[str, object]:
    """Save a box, new, moved or deleted; the same key twice is saved once."""
    entry = site.shelf.entry(key)
    saved = save_region(site.store, body.region(entry.slide_id), login=account.login)
    return {"was_there": saved.was_there, "saved": region_json(saved.region, may_edit=True)}


@router.get("/slides/{key}/regions.geojson")
def download_boxes(site: CurrentSite, account: CurrentAccount, key: Key) -> Response:
    """Give the boxes as QuPath GeoJSON."""
    entry, slide = site.shelf.entry(key), site.shelf.pyramid(key).slide
    with tempfile.TemporaryDirectory() as folder:
        file = FilePath(folder) / "regions.geojson"
        export_regions(site, account, entry, file=file, bounds_offset=slide.bounds_offset)
        content = file.read_bytes()
    return Response(
        content, media_type="application/geo+json", headers=_named(f"{entry.slide_id}.geojson")
    )


@router.post("/slides/{key}/import")
def upload_boxes(
    site: CurrentSite, account: CurrentAccount, key: Key, file: UploadFile
) -> Response:
    """Take boxes from a QuPath GeoJSON file."""
    entry, slide = site.shelf.entry(key), site.shelf.pyramid(key).slide
    with tempfile.TemporaryDirectory() as folder:
        # The name the browser gives is not used: it may be anything.
        path = FilePath(folder) / "upload.geojson"
        path.write_bytes(file.file.read())
        n = import_regions(site, account, entry, file=path, bounds_offset=slide.bounds_offset)
    return RedirectResponse(f"/slides/{key}?imported={n}", 303)


@router.post("/slides/{key}/queue")
def hand_out(site: CurrentSite, owner: Owner, key: Key) -> Response:
    """Cut the boxes and hand the crops out to the annotators."""
    n_new = queue_boxes(site, owner, site.shelf.entry(key))
    return RedirectResponse(f"/slides/{key}?queued={n_new}", 303)


def _may_edit(region: DrawnRegion, account: Account) -> bool:
    return region.login == account.login


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
