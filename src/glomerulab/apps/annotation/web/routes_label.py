"""The annotator's queue: the page, its items and images, and the saves."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from glomerulab.apps.annotation.records import Judgement, QueueItem, Study
from glomerulab.apps.annotation.store.annotations import (
    image_of_item,
    item_at,
    list_items,
    save_annotation,
)
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.web.access import CurrentAccount, CurrentSite, csrf_token
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.pictures import picture_digest, read_picture
from glomerulab.apps.annotation.web.schemas import RecordId, SaveBody, item_json, judgement_json
from glomerulab.apps.annotation.web.site import Site
from glomerulab.errors import AnnotationError, ImageFileError

__all__ = ["label_settings", "router"]

router = APIRouter()

UNCHANGING = "private, max-age=86400, immutable"
"""For an address that changes with the file."""


@router.get("/label")
def label_page(request: Request, site: CurrentSite, account: CurrentAccount) -> Response:
    """Show the labelling page."""
    settings = {
        "login": account.login,
        "csrf": csrf_token(request),
        "items": _item_states(site.store, account.login),
        **label_settings(site.study()),
    }
    return render_page(
        request, "label.html.j2", account=account, study=site.study(), settings=settings
    )


@router.get("/api/items")
def items(site: CurrentSite, account: CurrentAccount) -> list[dict[str, object]]:
    """List the own queue: new items appear when images are added."""
    return _item_states(site.store, account.login)


@router.get("/api/items/{place}")
def item(site: CurrentSite, account: CurrentAccount, place: RecordId) -> dict[str, object]:
    """Give the item at a place of the own queue."""
    return _shown(site, item_at(site.store, account.login, place))


@router.get("/items/{assignment_id}/image")
def image(site: CurrentSite, account: CurrentAccount, assignment_id: RecordId) -> Response:
    """Give the image of an own item; nobody else's, and no other file."""
    picture = read_picture(image_of_item(site.store, account.login, assignment_id).image_path)
    headers = {"Cache-Control": UNCHANGING, "Content-Disposition": "inline"}
    return Response(picture.content, media_type=picture.media_type, headers=headers)


@router.post("/api/annotations")
def save(site: CurrentSite, account: CurrentAccount, body: SaveBody) -> dict[str, object]:
    """Save what is said of an item; the same key twice is saved once."""
    judgement = body.judgement()
    _refuse_silence(judgement, site.study())
    saved = save_annotation(
        site.store,
        login=account.login,
        assignment_id=body.assignment_id,
        judgement=judgement,
        expected_version=body.expected_version,
        save_key=str(body.save_key),
        seconds=body.seconds,
        image_sha256=_digest_shown(site, body),
    )
    return {"was_there": saved.was_there, "saved": judgement_json(saved.annotation)}


def label_settings(study: Study) -> dict[str, object]:
    """Return what the page's script knows of the labels.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict
    """
    labels = [
        {
            "id": label.id,
            "name": label.name,
            "name_zh": label.name_zh or label.name,
            "excludes": list(label.excludes),
        }
        for label in study.taxonomy.labels
    ]
    return {"labels": labels, "needs_label": _needs_label(study)}


def _needs_label(study: Study) -> bool:
    """Tell whether an image always has a label: where one means that no other holds."""
    n_others = len(study.taxonomy.labels) - 1
    return any(len(label.excludes) == n_others for label in study.taxonomy.labels)


def _refuse_silence(judgement: Judgement, study: Study) -> None:
    if judgement.skip_reason is None and _needs_label(study) and 1 not in judgement.labels.values():
        raise AnnotationError("no label is set: set one, or skip the image with a reason")


def _digest_shown(site: Site, body: SaveBody) -> str | None:
    return body.image_mark and site.image_mark(body.assignment_id, body.image_mark)


def _shown(site: Site, found: QueueItem) -> dict[str, object]:
    """Return an item for the page; an image that cannot be read is told and may be skipped."""
    mark, problem = None, None
    try:
        mark = site.image_mark(found.assignment_id, picture_digest(found.image.image_path))
    except ImageFileError as error:
        problem = error.message
    return item_json(found, image_mark=mark, image_error=problem)


def _item_states(store: Store, login: str) -> list[dict[str, object]]:
    """Return place and state of every item, without saying which images they are."""
    return [{"place": one.place, "state": one.state} for one in list_items(store, login)]
