"""Pages of annotators: the queue with its images and saves, and the slides with their boxes.

Owners use the slides too.
"""

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, UploadFile
from starlette.responses import RedirectResponse, Response

from glomerulab.apps.annotation.label_validation import validate_labels
from glomerulab.apps.annotation.records import (
    AnnotationContent,
    Image,
    QueueItem,
    Study,
)
from glomerulab.apps.annotation.region_crops import crop_regions
from glomerulab.apps.annotation.region_sync import export_boxes, import_boxes
from glomerulab.apps.annotation.shapes import GLOMERULI, checked_shape, judged_labels
from glomerulab.apps.annotation.store.annotations import (
    image_of_item,
    item_at,
    list_items,
    save_annotation,
)
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import (
    cut_regions,
    each_region,
    find_region,
    save_region,
)
from glomerulab.apps.annotation.web.access import CurrentAccount, CurrentSite, Owner, csrf_token
from glomerulab.apps.annotation.web.image_files import (
    image_digest,
    read_browser_image,
    reference_pictures,
)
from glomerulab.apps.annotation.web.pages import label_guide, render_page
from glomerulab.apps.annotation.web.schemas import (
    AnnotationBody,
    EditBody,
    RecordId,
    RegionBody,
    annotation_json,
    item_json,
    region_json,
    rings_json,
)
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.annotation.web.work_process import ReportTrack, run_apart
from glomerulab.apps.web.language import language_of
from glomerulab.apps.web.security import content_policy
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import (
    AnnotationError,
    ImageFileError,
    MissingMppError,
    SlideError,
    UnknownRecordError,
)
from glomerulab.i18n.catalogue import Language
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.regions.features import SlideFrame
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.slides.slide import Slide
from glomerulab.slides.tiles import TILE_SIZE
from glomerulab.structures.classes import KNOWN_STRUCTURES

router = APIRouter()

Key = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
"""`hashed_name` of a slide's id."""
TileNumber = Annotated[int, Path(ge=0, le=1_000_000)]
MAX_BYTES_HERE = 1_000_000
"""A larger region file is imported by another process; a slide's glomeruli take less."""
CACHE_DAY = {"Cache-Control": "private, max-age=86400, immutable"}
"""For an address that changes with the file."""
CACHE_HOUR = {"Cache-Control": "private, max-age=3600"}


@router.get("/label")
def label_page(request: Request, site: CurrentSite, account: CurrentAccount) -> Response:
    """Show the labelling page."""
    study = site.study()
    if account.role == "adjudicator" and not list_items(site.store, account.login):
        return RedirectResponse("/study/disagreements", 303)
    settings = {
        "login": account.login,
        "csrf": csrf_token(request),
        "items": _item_states(site.store, account.login),
        "labels": [
            {
                "id": label.id,
                "name": label.name,
                "name_zh": label.name_zh or label.name,
                "excludes": list(label.excludes),
            }
            for label in study.taxonomy.labels
        ],
        "needs_label": _needs_label(study),
        "guide": label_guide(request, study),
    }
    return render_page(request, "label.html.j2", account=account, study=study, settings=settings)


@router.get("/labels/{label_id}/picture")
def label_picture(site: CurrentSite, account: CurrentAccount, label_id: str) -> Response:  # noqa: ARG001
    """Return the reference picture of a label that the study supplies."""
    path = reference_pictures(site.study()).get(label_id)
    if path is None:
        raise UnknownRecordError("the study supplies no reference picture of this label")
    found = read_browser_image(path)
    return Response(found.content, media_type=found.media_type, headers=CACHE_HOUR)


@router.get("/api/items")
def items(site: CurrentSite, account: CurrentAccount) -> list[dict[str, object]]:
    """Return the own queue, which grows when images are added."""
    return _item_states(site.store, account.login)


@router.get("/api/items/{place}")
def item(site: CurrentSite, account: CurrentAccount, place: RecordId) -> dict[str, object]:
    """Return the item at a position of the own queue, also if its image cannot be read."""
    found = item_at(site.store, account.login, place)
    mark, problem = _image_mark(site, found)
    return item_json(found, image_mark=mark, image_error=problem)


@router.get("/items/{assignment_id}/image")
def image(site: CurrentSite, account: CurrentAccount, assignment_id: RecordId) -> Response:
    """Return the image of an item of the own queue."""
    path = image_of_item(site.store, account.login, assignment_id).image_path
    found = read_browser_image(path)
    headers = {**CACHE_DAY, "Content-Disposition": "inline"}
    return Response(found.content, media_type=found.media_type, headers=headers)


@router.post("/api/annotations")
def save(site: CurrentSite, account: CurrentAccount, body: AnnotationBody) -> dict[str, object]:
    """Save the annotation of an item; the same key twice is saved once."""
    content = body.content()
    _check_complete(content, site.study())
    digest = body.image_mark and site.mask_digest(body.assignment_id, body.image_mark)
    if digest:
        _check_image(image_of_item(site.store, account.login, body.assignment_id), digest)
    saved = save_annotation(
        site.store,
        login=account.login,
        assignment_id=body.assignment_id,
        content=content,
        expected_version=body.expected_version,
        save_key=str(body.save_key),
        seconds=body.seconds,
        image_sha256=digest,
    )
    return {"was_there": saved.already_saved, "saved": annotation_json(saved.annotation)}


@router.get("/slides")
def slides_page(request: Request, site: CurrentSite, account: CurrentAccount) -> Response:
    """List the slides."""
    slides = [(hashed_name(entry.slide_id), entry) for entry in site.slide_cache.entries()]
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
    entry, pyramid = site.slide_cache.entry(key), site.slide_cache.pyramid(key)
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
        "slide_mpp": _mpp_or_none(pyramid.slide),
        "crop_mpp": site.settings.crop_mpp,
        "structures": _structures(language_of(request)),
        "glomeruli": sorted(GLOMERULI),
        "proposal": PROPOSAL_LABEL,
    }
    page = render_page(
        request,
        "slide.html.j2",
        account=account,
        study=site.study(),
        slide=entry,
        key=key,
        settings=settings,
        queued=queued,
        imported=imported,
        doubts=site.slide_cache.scale_warnings(key),
    )
    page.headers["Content-Security-Policy"] = content_policy(with_boxes=True)
    return page


@router.get("/slides/{key}/thumbnail.jpg")
def thumbnail(site: CurrentSite, account: CurrentAccount, key: Key) -> Response:  # noqa: ARG001
    """Return a small image of the tissue."""
    content = site.slide_cache.thumbnail(key)
    return Response(content, media_type="image/jpeg", headers=CACHE_HOUR)


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
    """Return one tile."""
    content = site.slide_cache.tile(key, level, column, row)
    return Response(content, media_type="image/jpeg", headers=CACHE_HOUR)


@router.get("/api/slides/{key}/regions", response_model=list[dict[str, object]])
def boxes(site: CurrentSite, account: CurrentAccount, key: Key) -> Response:
    """Return the boxes that the account may see."""
    slide_id = site.slide_cache.entry(key).slide_id
    cut = cut_regions(site.store, slide_id)
    # One by one: thousands at once would hold up every other request.
    texts = [
        json.dumps(region_json(one, may_edit=one.login == account.login, cut=one.region_id in cut))
        for one in each_region(site.store, login=account.login, slide_id=slide_id)
    ]
    return Response(f"[{','.join(texts)}]", media_type="application/json")


@router.post("/api/slides/{key}/regions")
def save_box(
    site: CurrentSite, account: CurrentAccount, key: Key, body: RegionBody
) -> dict[str, object]:
    """Save a new, changed or deleted shape; the same key twice is saved once."""
    slide_id = site.slide_cache.entry(key).slide_id
    known = find_region(site.store, body.region_id)  # such as one that a command imported
    if known is None:
        known = find_region(site.store, body.new_id())
    region_id = body.new_id() if known is None else known.region_id
    labels = () if known is None else known.labels
    if not body.deleted:
        labels = labels if body.labels is None else tuple(body.labels)
        labels = labels if body.proposed else judged_labels(labels)
    region, is_mended = body.region(slide_id, region_id, labels=labels), False
    if not body.deleted:
        region, is_mended = checked_shape(region, site.slide_cache.pyramid(key).slide.dimensions)
    saved = save_region(site.store, region, login=account.login)
    return {
        "was_there": saved.already_saved,
        "saved": region_json(saved.region, may_edit=True),
        "mended": is_mended,
    }


@router.post("/api/shapes")
def edit_shapes(account: CurrentAccount, body: EditBody) -> dict[str, object]:  # noqa: ARG001
    """Return a shape cut along a stroke, or two shapes joined; the page saves what it takes."""
    return {"shapes": [rings_json(one) for one in body.edited()]}


@router.get("/slides/{key}/regions.geojson")
def download_boxes(site: CurrentSite, account: CurrentAccount, key: Key) -> Response:
    """Return the boxes as QuPath GeoJSON."""
    slide_id = site.slide_cache.entry(key).slide_id
    with tempfile.TemporaryDirectory() as folder:
        path = FilePath(folder) / "regions.geojson"
        export_boxes(
            site.store,
            path,
            login=account.login,
            slide_id=slide_id,
            bounds_offset=site.slide_cache.pyramid(key).slide.bounds_offset,
        )
        content = path.read_bytes()
    name = quote(f"{slide_id}.geojson", safe="")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return Response(content, media_type="application/geo+json", headers=headers)


@router.post("/slides/{key}/import")
def upload_boxes(
    site: CurrentSite, account: CurrentAccount, key: Key, file: UploadFile
) -> Response:
    """Import boxes from a QuPath GeoJSON file."""
    entry, slide = site.slide_cache.entry(key), site.slide_cache.pyramid(key).slide
    frame = SlideFrame.of(slide)
    if entry.mpp is not None:
        frame = replace(frame, mpp_xy=slide.mpp_xy)
    with site.imports.running(account.login) as report, tempfile.TemporaryDirectory() as folder:
        # The name that the browser gives is not used: it may be anything.
        path = FilePath(folder) / "upload.geojson"
        path.write_bytes(file.file.read())
        work = partial(
            import_boxes,
            site.store,
            path,
            login=account.login,
            slide_id=entry.slide_id,
            frame=frame,
        )
        if path.stat().st_size > MAX_BYTES_HERE:
            n_boxes = run_apart(work, report=report)
        else:
            n_boxes = work(track=ReportTrack(report))
    return RedirectResponse(f"/slides/{key}?imported={n_boxes}", 303)


@router.get("/api/import")
def import_progress(site: CurrentSite, account: CurrentAccount) -> dict[str, int]:
    """Return how many boxes of the own import are saved, for the page that waits for it."""
    n_done, n_boxes = site.imports.progress(account.login)
    return {"n_done": n_done, "n_boxes": n_boxes}


@router.post("/slides/{key}/queue")
def queue_slide(site: CurrentSite, owner: Owner, key: Key) -> Response:
    """Cut the boxes of a slide and assign the crops to the annotators."""
    n_new = queue_boxes(site, site.slide_cache.entry(key), by=owner.login)
    return RedirectResponse(f"/slides/{key}?queued={n_new}", 303)


def queue_boxes(site: Site, slide: SlideEntry, *, by: str) -> int:
    """Cut every box of a slide, assign the crops, and return how many images are new."""
    done = crop_regions(
        site.store,
        [slide],
        out=site.crops_folder,
        by=by,
        mpp=site.settings.crop_mpp,
        margin=site.settings.crop_margin,
        slide_id=slide.slide_id,
    )
    distribute(site.store, by=by)
    if done.failures:
        reason = next(iter(done.failures.values()))
        raise SlideError(
            f"{len(done.failures)} shape(s) could not be cut, the first because: {reason}; "
            f"{done.n_added} other(s) were handed out"
        )
    return done.n_added


def _structures(language: Language) -> list[dict[str, object]]:
    """Return the structures to draw, the glomerulus first; the first nine have a key."""
    ordered = sorted(KNOWN_STRUCTURES, key=lambda one: one.id not in GLOMERULI)
    return [
        {"id": one.id, "name": one.name_in(language), "colour": f"#{bytes(one.colour).hex()}"}
        for one in ordered
    ]


def _mpp_or_none(slide: Slide) -> float | None:
    try:
        return slide.mpp
    except MissingMppError:
        return None  # the page says so before it offers to cut


def _needs_label(study: Study) -> bool:
    """Return whether an image always has a label: one label excludes all others."""
    n_others = len(study.taxonomy.labels) - 1
    return any(len(label.excludes) == n_others for label in study.taxonomy.labels)


def _check_complete(content: AnnotationContent, study: Study) -> None:
    """Refuse what the page does not send: labels beside a skip, or some of the labels alone."""
    if content.skip_reason is not None:
        if content.labels or content.unsure:
            raise AnnotationError(
                "a skipped image has no labels and is not unsure; clear them or do not skip it"
            )
        return
    validate_labels(content.labels, study.taxonomy)
    if _needs_label(study) and 1 not in content.labels.values():
        raise AnnotationError("no label is set; set one, or skip the image with a reason")
    missing = [one for one in study.taxonomy.label_ids if one not in content.labels]
    if missing:
        raise AnnotationError(
            f"the label(s) {', '.join(missing)} are missing; send 1 or 0 for every label of the "
            "study"
        )


def _check_image(image: Image, digest: str) -> None:
    """Refuse the labels of an image file that is another by now."""
    try:
        now = image_digest(image.image_path)
    except ImageFileError:
        return  # it was shown, and cannot be read for the moment
    if now != digest:
        raise AnnotationError(
            "the image file was changed since this image was opened; open it again and label what "
            "it shows now"
        )


def _image_mark(site: Site, found: QueueItem) -> tuple[str | None, str | None]:
    """Return the masked digest of an item's image, or why the image cannot be read."""
    try:
        return site.mask_digest(found.assignment_id, image_digest(found.image.image_path)), None
    except ImageFileError as error:
        return None, error.message


def _item_states(store: Store, login: str) -> list[dict[str, object]]:
    """Return position and state of every item, without anything that identifies the images."""
    return [{"place": one.position, "state": one.state} for one in list_items(store, login)]
